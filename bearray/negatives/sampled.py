"""Titles drawn from the model in training: constrained ancestral sampling over the trie.

From the root on, the next token is drawn with the policy's probability among the tokens that the trie allows
there (softmax over those alone), until a title ends. A prompt is computed once; where only one token can
follow, it costs nothing until the next choice needs its keys. The draws of a window come from (seed, step,
window), one number for each depth, so that they do not depend on workers or micro-batches.

Axis letters: U windows of a batch, K valid next tokens of the widest node.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from bearray.batching import left_pad
from bearray.decoding.drive import map_batches
from bearray.decoding.prefixes import PrefixTree
from bearray.decoding.scoring import Scorer
from bearray.negatives.drawn import Drawn, stream
from bearray.trie import TokenTrie


class SampledTitles:
    """Titles by the policy's own probability, with replacement.

    Args:
        model: it, its weights whole while it is called; sampling puts it in evaluation mode and back.
        trie: the catalogue's titles, on the model's device.
        prompts: [W] tokens of each training window's prompt.
        count: titles of each window.
        batch_size: windows at a time; None: as many as memory holds.
        pad_token_id: fills prompts up.
        seed: of the run.
    """

    uses_model = True

    def __init__(
        self,
        model: nn.Module,
        trie: TokenTrie,
        prompts: Sequence[Sequence[int]],
        *,
        count: int,
        batch_size: int | None,
        pad_token_id: int,
        seed: int,
    ) -> None:
        self.model, self.trie, self.prompts = model, trie, prompts
        self.count, self.batch_size, self.pad_token_id, self.seed = count, batch_size, pad_token_id, seed

    def __call__(self, rows: Sequence[int], step: int) -> list[list[Drawn]]:
        """`count` titles for each window, with their log-probabilities."""
        if not rows:
            return []
        input_ids, attention_mask = left_pad([self.prompts[r] for r in rows], self.pad_token_id)
        depths = self.trie.max_depth + 1
        draws = torch.from_numpy(
            np.stack([stream(self.seed, step, r).random((self.count, depths)) for r in rows])
        )
        parts, order = map_batches(
            self.model,
            input_ids,
            attention_mask,
            self.trie,
            lambda scorer, ids, lengths, row: sample_titles(scorer, ids, lengths, draws[row.cpu()]),
            normalize="trie",
            answer_tokens=self.count * self.trie.max_depth,
            batch_size=self.batch_size,
        )
        titles = torch.cat([title for title, _ in parts])[order.argsort()]
        scores = torch.cat([score for _, score in parts])[order.argsort()]
        return [
            [Drawn(*one) for one in zip(own, of_own, strict=True)]
            for own, of_own in zip(titles.tolist(), scores.tolist(), strict=True)
        ]


def sample_titles(scorer: Scorer, ids: Tensor, lengths: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Draw titles for a batch of windows.

    Args:
        scorer: of the batch, with the trie's normaliser.
        ids: [U, T] prompts, padded on the right. lengths: [U] their tokens.
        draws: [U, P, max_depth + 1] float64, uniform in [0, 1): for each of P titles, one for each depth.

    Returns:
        Titles [U, P] int64 and their log-probabilities [U, P] float32.
    """
    trie, device = scorer.trie, ids.device
    draws = draws.to(device)
    users, count, _ = draws.shape
    tree = PrefixTree(scorer.network, ids, lengths, trie.max_depth)
    user = torch.arange(users, device=device)[:, None].expand(users, count)
    node = torch.zeros(users, count, dtype=torch.long, device=device)
    slot = torch.full_like(node, -1)
    computed = torch.zeros_like(node)  # depth of the last token whose keys are there
    score = torch.zeros(users, count, device=device)
    is_open = torch.ones_like(node, dtype=torch.bool)
    hidden = tree.root_hidden[:, None].expand(-1, count, -1).clone()
    same_node = True  # all begin where the titles first differ
    while True:
        node = torch.where(is_open, trie.forced_end[node].long(), node)
        is_open &= trie.child_start[node + 1] > trie.child_start[node]  # a leaf can only end
        if not bool(is_open.any()):
            return trie.terminal[node].long(), score
        waits = is_open & (trie.depth[node] > computed)
        if bool(waits.any()):
            new = tree.extend(trie, node, computed, slot, waits)
            hidden[new.user[new.last], new.prefix[new.last]] = new.hidden[new.last]
            slot, computed = new.slot, torch.where(waits, trie.depth[node].long(), computed)
        log_probs, child = scorer(hidden[is_open], node[is_open], user[is_open], same_node=same_node)
        same_node = False
        draw = draws[is_open].gather(1, trie.depth[node[is_open]].long()[:, None])
        column = _inverse(log_probs, draw)
        score[is_open] += log_probs.gather(1, column)[:, 0]
        chosen = child.gather(1, column)[:, 0]
        node[is_open] = torch.where(chosen < 0, node[is_open], chosen)
        is_open = is_open.masked_scatter(is_open, chosen >= 0)


def _inverse(log_probs: Tensor, draw: Tensor) -> Tensor:
    """The first column [N, 1] whose cumulative probability is above draw [N, 1] in [0, 1)."""
    upto = log_probs.double().exp().cumsum(1)
    column = torch.searchsorted(upto, draw * upto[:, -1:], right=True)
    # Where rounding leads past the last column that has any mass, that one is meant.
    last = (log_probs > -torch.inf).long().cumsum(1).argmax(1, keepdim=True)
    return column.minimum(last)
