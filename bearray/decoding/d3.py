"""D3, debiasing-diversifying decoding: beam search in which a text-free recommender has a say on each token.

    score(v | node) = alpha * log p(v | node) + (1 - alpha) * log p_CF(v | node)
    p_CF(v | node)  = (mass below v + 1e-20) / (sum over valid w of mass below w + 1e-20)

p is the language model's, a title's mass is its probability under the text-free model (a softmax over the
titles), and the mass below v is that of the titles that start with the node's tokens and v. A title's score
is the sum over its tokens, without length normalisation, which would favour titles with tokens that are
certain anyway. Bao et al., EMNLP 2024, arXiv 2406.14900.

Axis letters: U users, P titles by place, N trie nodes, K continuations.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bearray.config import Normalize
from bearray.decoding.beam import guided_beam_search
from bearray.decoding.result import BeamResult
from bearray.decoding.title_filter import LivingTitles, TitleFilter
from bearray.errors import ConfigError, DataError
from bearray.title_order import TitleOrder
from bearray.trie import TokenTrie

_FLOOR = 1e-20
"""Added to every mass, as in the published code: what the text-free model rules out stays possible."""


def d3_beam_search(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    trie: TokenTrie,
    item_scores: Tensor,
    *,
    alpha: float,
    beam_width: int = 10,
    normalize: Normalize = "full",
    length_penalty: float = 0.0,
    titles: TitleFilter | None = None,
    batch_size: int | None = None,
    eos_token_id: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BeamResult:
    """The B titles of best D3 score that beam search of width B finds, for each user.

    Args:
        model, input_ids, attention_mask, trie, beam_width, length_penalty, titles, batch_size, eos_token_id,
            progress: as in `constrained_beam_search`. With `titles`, the text-free model is asked about the
            titles that a user may be given only.
        item_scores: [U, titles] logits of a text-free model over title ids, on any device; `expand` one row
            where all users share it. -inf rules a title out. Where two titles have the same tokens, the
            column of the first one counts, so add up what belongs together before.
        alpha: weight of the language model, in [0, 1]; 1 is `constrained_beam_search`.
        normalize: p over the valid next tokens ("trie") or over the vocabulary ("full", as published).

    Returns:
        BeamResult on the CPU; scores are D3's and no log-probabilities, and `certified` is about them.

    Raises:
        ConfigError: alpha outside [0, 1], or as `constrained_beam_search`.
        DataError: scores of the wrong shape, NaN or +inf among them, or a row without a finite one; or as
            `constrained_beam_search`.
        ModelError: as `constrained_beam_search`.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha is {alpha}; it must be in [0, 1]")
    _check_scores(item_scores, len(input_ids), trie.num_sequences)

    def make_guide(trie: TokenTrie, rows: Tensor, living: LivingTitles | None) -> TextFreeGuide:
        scores = item_scores[rows.to(item_scores.device)].to(trie.device)
        return TextFreeGuide(trie, scores, alpha, living)

    # Both terms are at most 0 for every token, so scores fall with length, as `certified` needs.
    return guided_beam_search(
        model,
        input_ids,
        attention_mask,
        trie,
        beam_width=beam_width,
        normalize=normalize,
        length_penalty=length_penalty,
        titles=titles,
        make_guide=make_guide,
        batch_size=batch_size,
        eos_token_id=eos_token_id,
        progress=progress,
    )


class TextFreeGuide:
    """Blends log-probabilities of tokens with the shares of a text-free model's mass; a `Guide`.

    Args:
        trie: the titles.
        scores: [U, titles] the batch's text-free logits, on the trie's device.
        alpha: weight of the language model.
        living: the titles that each user may be given; None: all.
    """

    def __init__(self, trie: TokenTrie, scores: Tensor, alpha: float, living: LivingTitles | None) -> None:
        self.order = trie.title_order
        self.alpha = alpha
        logits = scores[:, _title_at_place(self.order)].double()  # [U, P]
        if living is not None:
            logits = logits.masked_fill(~living.mask(len(scores)), -torch.inf)
        # A user with nothing possible has a row of NaN: no mass anywhere, so the floor decides.
        self.mass = _IntervalSums(torch.softmax(logits, dim=1).nan_to_num(0.0))

    def blend(self, log_probs: Tensor, users: Tensor, nodes: Tensor, child: Tensor) -> Tensor:
        """New scores [N, K]; see `Guide`."""
        valid = log_probs > -torch.inf
        mass = self.mass(users, *self.order.intervals(nodes, child)) + _FLOOR
        mass = torch.where(valid, mass, 0.0)
        share = torch.where(valid, mass / mass.sum(1, keepdim=True), 1.0).log().float()
        model = self.alpha * log_probs if self.alpha > 0 else torch.zeros_like(log_probs)
        return model + (1 - self.alpha) * share


class _IntervalSums:
    """Sums of non-negative values over intervals of places, each with full relative precision.

    Differences of cumulative sums would lose the titles whose probability is below 1e-16, and their order
    with it; so sums of aligned blocks of 1, 2, 4, ... values are kept, and an interval is made up of blocks.

    Args:
        values: [U, P].
    """

    def __init__(self, values: Tensor) -> None:
        self.levels = [values]
        while self.levels[-1].shape[1] > 1:
            blocks = self.levels[-1]
            blocks = nn.functional.pad(blocks, (0, blocks.shape[1] % 2))
            self.levels.append(blocks.unflatten(1, (-1, 2)).sum(2))

    def __call__(self, users: Tensor, first: Tensor, end: Tensor) -> Tensor:
        """[N, K] sums over [first, end) of row `users` [N]; first and end are [N, K], first <= end."""
        row = users[:, None]
        total = torch.zeros(first.shape, dtype=self.levels[0].dtype, device=first.device)
        for blocks in self.levels:
            last = blocks.shape[1] - 1
            # A block that is a right half, or a left half before the end, is not part of a whole above it.
            left = (first % 2 == 1) & (first < end)
            total += torch.where(left, blocks[row, first.clamp(max=last)], 0.0)
            first = first + left
            right = (end % 2 == 1) & (first < end)
            total += torch.where(right, blocks[row, (end - 1).clamp(0, last)], 0.0)
            first, end = first // 2, (end - right.long()) // 2
        return total


def _title_at_place(order: TitleOrder) -> Tensor:
    """[P] the title id at each place."""
    titles = (order.place >= 0).nonzero()[:, 0]
    at = torch.empty_like(titles)
    at[order.place[titles].long()] = titles
    return at


def _check_scores(scores: Tensor, users: int, titles: int) -> None:
    if tuple(scores.shape) != (users, titles):
        raise DataError(
            f"item_scores is {list(scores.shape)}; it must be [users, titles of the trie], {[users, titles]}"
        )
    if bool((torch.isnan(scores) | (scores == torch.inf)).any()):
        raise DataError("item_scores holds NaN or +inf; they must be logits, -inf for what is ruled out")
    empty = (scores == -torch.inf).all(1)
    if bool(empty.any()):
        raise DataError(f"row {int(empty.int().argmax())} of item_scores rules out every title")
