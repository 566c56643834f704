"""Answers that the model itself gives, by constrained beam search with the policy as it stands.

As negatives ("self"): its best titles that are not the target. Beam search finds `count` + 1 titles, so that
one can be left out; should it find too few, uniform titles fill up. As rollouts: all that it finds, the
target included, with their scores.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from bearray.batching import left_pad
from bearray.config import DecodingConfig
from bearray.decoding import constrained_beam_search
from bearray.negatives.chance import UniformNegatives
from bearray.negatives.drawn import Drawn
from bearray.trie import TokenTrie


class GeneratedAnswers:
    """Best titles of the model in training, best first.

    Args:
        model: it, its weights whole while it is called; decoding puts it in evaluation mode and back.
        trie: the catalogue's titles, on the model's device.
        prompts: [W] tokens of each training window's prompt.
        targets: [W] each window's target title.
        count: answers of each window.
        keep_target: rollouts, not negatives.
        decoding: normaliser and batch size; scores are log-probabilities under it.
        pad_token_id: fills prompts up.
        seed: of the uniform titles that fill up.
    """

    uses_model = True

    def __init__(
        self,
        model: nn.Module,
        trie: TokenTrie,
        prompts: Sequence[Sequence[int]],
        targets: Sequence[int],
        *,
        count: int,
        keep_target: bool,
        decoding: DecodingConfig,
        pad_token_id: int,
        seed: int,
    ) -> None:
        self.model, self.trie, self.prompts, self.targets = model, trie, prompts, targets
        self.count, self.keep_target, self.decoding = count, keep_target, decoding
        self.pad_token_id = pad_token_id
        titles = trie.num_sequences
        self.spare = UniformNegatives(targets, titles, min(2 * count, titles - 1), seed)

    def __call__(self, rows: Sequence[int], step: int) -> list[list[Drawn]]:
        """Answers for each window: `count` negatives, or at most `count` rollouts."""
        if not rows:
            return []
        input_ids, attention_mask = left_pad([self.prompts[r] for r in rows], self.pad_token_id)
        device = self.trie.device
        result = constrained_beam_search(
            self.model,
            input_ids.to(device),
            attention_mask.to(device),
            self.trie,
            beam_width=self.count if self.keep_target else self.count + 1,
            normalize=self.decoding.normalize,
            batch_size=self.decoding.batch_size,
        )
        found = [
            [Drawn(t, s) for t, s in zip(titles, scores, strict=True) if t >= 0]
            for titles, scores in zip(result.title_ids.tolist(), result.scores.tolist(), strict=True)
        ]
        if self.keep_target:
            return found
        return [self._negatives(row, step, own) for row, own in zip(rows, found, strict=True)]

    def _negatives(self, row: int, step: int, found: list[Drawn]) -> list[Drawn]:
        wrong = [d for d in found if d.title != self.targets[row]][: self.count]
        if len(wrong) == self.count:
            return wrong
        known = {d.title for d in wrong}
        (spare,) = self.spare([row], step)
        return (wrong + [d for d in spare if d.title not in known])[: self.count]
