"""Diverse beam search over a token trie: groups of beams that pay for choosing the tokens of earlier groups.

The B beams are G groups of w = B / G. At each depth the groups choose one after the other, each as a beam
search of width w, among continuations v of its prefixes by

    score of the prefix + log p(v | prefix) - penalty * (beams of earlier groups that chose v at this depth)

and what was paid stays in a prefix's score, as in Vijayakumar et al., arXiv 1610.02424 (Hamming diversity),
and in `transformers`. The end of a title is not counted: two titles that end at one depth need not be alike.

Where this departs: the groups' titles are put together, a title that several groups found once, and are
returned with their log-probabilities and in that order, not with what was paid; so lists can be compared
with those of the other decoders. Lists can be shorter than B.

Groups wait for each other at each depth, so none of `beam.py`'s ways of running ahead apply, but for tokens
that are certain ("trie"). Axis letters: U users, B beams, G groups, w beams of a group, K continuations.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bearray.config import Normalize
from bearray.decoding.beams import widen
from bearray.decoding.drive import search_in_batches
from bearray.decoding.prefixes import PrefixTree
from bearray.decoding.result import BeamResult, make_result
from bearray.decoding.scoring import Scorer
from bearray.decoding.title_filter import TitleFilter
from bearray.errors import ConfigError
from bearray.trie import TokenTrie


def diverse_beam_search(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    trie: TokenTrie,
    *,
    beam_width: int = 10,
    groups: int = 5,
    penalty: float = 0.5,
    normalize: Normalize = "trie",
    titles: TitleFilter | None = None,
    batch_size: int | None = None,
    eos_token_id: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BeamResult:
    """At most B titles that groups of beams find, each group kept off the others' tokens, for each user.

    Args:
        model, input_ids, attention_mask, trie, normalize, titles, batch_size, eos_token_id, progress: as in
            `constrained_beam_search`.
        beam_width: B, beams of all groups together and titles returned at most.
        groups: G; must divide the beam width. One group is `constrained_beam_search`.
        penalty: what each earlier beam with the same token costs, in nats; 0 makes all groups alike.

    Returns:
        BeamResult on the CPU, by log-probability. `certified` is never claimed.

    Raises:
        ConfigError: groups that do not divide the beam width, a penalty that is negative or not finite, or as
            `constrained_beam_search`.
        DataError, ModelError: as `constrained_beam_search`.
    """
    if beam_width < 1:
        raise ConfigError(f"beam_width is {beam_width}; it must be at least 1")
    if groups < 1 or beam_width % groups:
        raise ConfigError(f"groups is {groups}; it must divide beam_width, {beam_width}")
    if not (math.isfinite(penalty) and penalty >= 0):
        raise ConfigError(f"penalty is {penalty}; it must be at least 0")

    def start(scorer: Scorer, ids: Tensor, lengths: Tensor, rows: Tensor) -> _Search:
        return _Search(scorer, ids, lengths, groups, beam_width // groups, penalty)

    return search_in_batches(
        model,
        input_ids,
        attention_mask,
        trie,
        start,
        normalize=normalize,
        answer_tokens=beam_width * trie.max_depth,
        titles=titles,
        batch_size=batch_size,
        eos_token_id=eos_token_id,
        progress=progress,
    )


class _Search:
    """One batch of users. Group g has beams g * w to (g + 1) * w - 1; a dead beam's `paid` is -inf."""

    def __init__(
        self, scorer: Scorer, ids: Tensor, lengths: Tensor, groups: int, width: int, penalty: float
    ) -> None:
        self.scorer = scorer
        self.trie = trie = scorer.trie
        self.width, self.penalty = width, penalty
        users, beams, device = len(ids), groups * width, ids.device
        self.slices = [slice(g * width, (g + 1) * width) for g in range(groups)]
        self.tree = PrefixTree(scorer.network, ids, lengths, trie.max_depth)
        self.depth = 0
        self.vocabulary = max(trie.largest_token, scorer.network.eos_token_id) + 1

        def table(fill: float, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.full((users, beams), fill, dtype=dtype, device=device)

        self.log_prob = table(0.0)
        self.paid = table(-torch.inf)
        """[U, B] log-probability minus all penalties: what prefixes are chosen by."""
        self.paid[:, ::width] = 0.0
        self.node, self.computed = table(0, torch.long), table(0, torch.long)
        self.slot = table(-1, torch.long)
        self.final_log_prob, self.final_paid = table(-torch.inf), table(-torch.inf)
        self.final_node = table(0, torch.long)
        self.expanded = torch.zeros(users, dtype=torch.long, device=device)

    def run(self) -> BeamResult:
        while bool((self.paid > -torch.inf).any()):
            step, child = self._continuations()
            token = self.trie.tokens_of(child.flatten(1), self.scorer.network.eos_token_id).view_as(child)
            chosen = torch.zeros(len(token), self.vocabulary, device=token.device)
            for group in self.slices:
                self._choose(group, step[:, group], child[:, group], token[:, group], chosen)
            self.depth += 1
        return self._result()

    def _continuations(self) -> tuple[Tensor, Tensor]:
        """(log-probabilities, nodes) [U, B, K] of what may follow each live beam; -inf elsewhere."""
        users, beams = self.node.shape
        everyone = torch.arange(users, device=self.node.device)
        if self.depth == 0:
            step, child = self.scorer(self.tree.root_hidden, self.node[:, 0], everyone, same_node=True)
            self.expanded += 1
            return step[:, None].expand(-1, beams, -1), child[:, None].expand(-1, beams, -1)
        trie, live = self.trie, self.paid > -torch.inf
        certain = live & (trie.child_count(self.node) == 1) & (self.scorer.normalize == "trie")
        waits = live & ~certain
        step = self.paid.new_full((users, beams, 1), -torch.inf)
        child = self.node.new_zeros((users, beams, 1))
        if bool(waits.any()):
            new = self.tree.extend(trie, self.node, self.computed, self.slot, waits)
            self.slot = new.slot
            self.computed = torch.where(waits, self.depth, self.computed)
            self.expanded += waits.sum(1)
            user, prefix = new.user[new.last], new.prefix[new.last]
            log_probs, found = self.scorer(new.hidden[new.last], new.node[new.last], user)
            step, child = widen(step, log_probs.shape[1], -torch.inf), widen(child, log_probs.shape[1], 0)
            step[user, prefix], child[user, prefix] = log_probs, found
        only = torch.where(trie.terminal[self.node] >= 0, -1, trie.child_start[self.node].long() + 1)
        step[..., 0] = torch.where(certain, 0.0, step[..., 0])
        child[..., 0] = torch.where(certain, only, child[..., 0])
        return step, child

    def _choose(self, group: slice, step: Tensor, child: Tensor, token: Tensor, chosen: Tensor) -> None:
        """One group's depth of beam search.

        Args:
            step, child, token: [U, w, K] continuations of the group's prefixes.
            chosen: [U, V] how many beams of earlier groups took each token; this group's are added.
        """
        _, width, kept = step.shape
        cost = self.penalty * chosen.gather(1, token.flatten(1)).view_as(step)
        cost = torch.where(child < 0, 0.0, cost)
        paid = (self.paid[:, group, None] + step - cost).flatten(1)
        log_prob = (self.log_prob[:, group, None] + step).flatten(1)
        paid, index = paid.topk(min(2 * width, paid.shape[1]), dim=1)
        paid, index = widen(paid, 2 * width, -torch.inf), widen(index, 2 * width, 0)
        log_prob = log_prob.gather(1, index)
        beam = index // kept
        to, token = (values.flatten(1).gather(1, index) for values in (child, token))
        ends = (to < 0) & (paid > -torch.inf)
        rank = torch.arange(2 * width, device=paid.device)

        # As in beam search: a title that is among the best w is stored, the best w others go on.
        stored = torch.where(ends & (rank < width), paid, -torch.inf)
        final, place = torch.cat([self.final_paid[:, group], stored], dim=1).topk(width, dim=1)
        self.final_log_prob[:, group] = torch.cat([self.final_log_prob[:, group], log_prob], 1).gather(
            1, place
        )
        parents = self.node[:, group].gather(1, beam)
        self.final_node[:, group] = torch.cat([self.final_node[:, group], parents], 1).gather(1, place)
        self.final_paid[:, group] = final

        best, place = paid.masked_fill(ends, -torch.inf).topk(width, dim=1)
        alive = best > -torch.inf
        chosen.scatter_add_(1, token.gather(1, place), alive.float())
        # Scores only fall: a group whose best prefix does not beat its worst title is done.
        alive &= best[:, :1] > final[:, -1:]
        self.paid[:, group] = torch.where(alive, best, -torch.inf)
        self.log_prob[:, group] = log_prob.gather(1, place)
        self.node[:, group] = torch.where(alive, to.gather(1, place), 0)
        beam = beam.gather(1, place)
        for state in (self.slot, self.computed):
            state[:, group] = state[:, group].gather(1, beam)

    def _result(self) -> BeamResult:
        """All groups' titles by log-probability, each once."""
        score = torch.where(self.final_paid > -torch.inf, self.final_log_prob, -torch.inf)
        score, order = score.sort(dim=1, descending=True, stable=True)
        node = self.final_node.gather(1, order)
        same = (node[:, :, None] == node[:, None, :]) & (score > -torch.inf)[:, :, None]
        score = score.masked_fill(same.tril(-1).any(2), -torch.inf)
        score, order = score.sort(dim=1, descending=True, stable=True)
        unclaimed = torch.zeros(len(node), dtype=torch.bool)
        return make_result(
            self.trie, node.gather(1, order), score, unclaimed, self.tree.passes, self.expanded
        )
