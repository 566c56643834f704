"""Branch and bound over the trie: what exact search and the search for a title's rank have in common.

A prefix's log-probability bounds that of every title below it, since each further token can only lower it.
So a prefix whose log-probability does not exceed its user's bar is left alone with all its titles. The bar is
what the searches differ in: the K-th best title found (`exact.py`), or a given title's own score
(`target.py`).

Axis letters: U users, P open prefixes, E prefixes expanded at once, C children, M titles.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from bearray.decoding.prefixes import PrefixTree
from bearray.decoding.scoring import Scorer
from bearray.errors import ConfigError
from bearray.trie import TokenTrie

_FIRST_STRETCH = 4
"""Tokens of a forced stretch that are computed at once behind a prefix of one token ("full")."""
_PASS_TOKENS = 512
"""Tokens of one user in a forward pass, at most (a chain that begins below that many goes in whole)."""
_TABLE = 2**24
"""Continuations of all users that are filed at a time, at most (one prefix a user goes in whatever its
children)."""
_MOST_SLOTS = 1024
"""Computed tokens that a user keeps; with more, all are forgotten and computed again where needed. It bounds
memory and the cost of attention, whatever part of the catalogue is searched, and takes no longer."""


class BranchAndBound(ABC):
    """One batch of users. `open_*` are [U, P], in the order of expansion; the score is -inf where a user has
    fewer than P open prefixes.

    Args:
        scorer, ids, lengths: the batch, as `search_in_batches` gives it.
        node_budget: prefixes expanded at most for one user, the prompt included; None: no limit.
        expand_width: E.
    """

    results: tuple[str, ...] = ("expanded", "proven")
    """Names of the tensors with a row a user that `run` returns; subclasses add theirs."""

    def __init__(
        self,
        scorer: Scorer,
        ids: Tensor,
        lengths: Tensor,
        *,
        node_budget: int | None,
        expand_width: int,
    ) -> None:
        self.scorer = scorer
        self.trie = scorer.trie
        self.full = scorer.normalize == "full"
        self.budget = None if node_budget is None else min(node_budget, 2**62)  # what a tensor can hold
        self.expand_width = expand_width
        users, device = len(ids), ids.device
        self.tree = PrefixTree(scorer.network, ids, lengths, self.trie.max_depth, reserve=256)
        self.user = torch.arange(users, device=device)
        self.expanded = torch.ones(users, dtype=torch.long, device=device)
        self.proven = torch.zeros(users, dtype=torch.bool, device=device)
        self.open_score = torch.zeros(users, 0, device=device)
        self.open_node = torch.zeros(users, 0, dtype=torch.long, device=device)
        self.open_slot, self.open_computed = self.open_node, self.open_node

    @abstractmethod
    def bar(self) -> Tensor:
        """[U] the log-probability that a prefix must exceed to be of interest."""

    @abstractmethod
    def finish(self, score: Tensor, node: Tensor) -> None:
        """Take titles that were reached: scores [U, M], -inf for none, and their last nodes [U, M]."""

    def urgency(self, score: Tensor, node: Tensor) -> Tensor:
        """[U, P] which prefixes are expanded first, those of the largest numbers: the most probable ones."""
        return score

    def search(self) -> dict[str, Tensor]:
        """Expand until no prefix is open, or the budget is spent; the tensors of `results`, [U, ...]."""
        root = torch.zeros_like(self.user)
        log_probs, child = self.scorer(self.tree.root_hidden, root, self.user, same_node=True)
        self._add(log_probs[:, None], child[:, None], root[:, None], root[:, None] - 1)
        everyone = {name: getattr(self, name).clone() for name in self.results}
        while True:
            # Prefixes that cannot win are dropped: none left is the proof.
            self.proven = (self.open_score <= self.bar()[:, None]).all(1)
            done = self.proven if self.budget is None else self.proven | (self.expanded >= self.budget)
            stay = (~done).nonzero()[:, 0]
            if len(stay) <= 0.75 * len(done):
                for name in self.results:
                    everyone[name][self.user] = getattr(self, name)
                if not len(stay):
                    return everyone
                self._keep_rows(stay)
                done = done[stay]
            self._expand(~done)

    def _keep_rows(self, rows: Tensor) -> None:
        self.tree.keep_rows(rows)
        for name in ("user", *self.results, "open_score", "open_node", "open_slot", "open_computed"):
            setattr(self, name, getattr(self, name)[rows])

    def _expand(self, active: Tensor) -> None:
        """Compute the first open prefixes of each active user and put their continuations in their place."""
        trie = self.trie
        if self.tree.used > _MOST_SLOTS:
            self.tree.forget()
            self.open_slot = torch.full_like(self.open_slot, -1)
            self.open_computed = torch.zeros_like(self.open_computed)
        width = min(self.expand_width, self.open_score.shape[1])
        score, node = self.open_score[:, :width], self.open_node[:, :width]
        computed = self.open_computed[:, :width]
        end = self._stretch_end(node) if self.full else node
        chosen = active[:, None] & (score > self.bar()[:, None])
        tokens = torch.where(chosen, trie.depth[end].long() - computed, 0)
        chosen &= tokens.cumsum(1) - tokens < _PASS_TOKENS
        most_children = int(trie.child_count(end).masked_fill(~chosen, 1).max())
        place = torch.arange(width, device=node.device)
        chosen &= place < max(1, _TABLE // (len(node) * most_children))
        if self.budget is not None:
            chosen &= place < (self.budget - self.expanded)[:, None]
        new = self.tree.extend(trie, end, computed, self.open_slot[:, :width], chosen)
        self.open_score = self.open_score.clone()
        self.open_score[:, :width].masked_fill_(chosen, -torch.inf)
        self.expanded = self.expanded + chosen.sum(1)

        total = score
        # Nodes of the forced stretch, the prefix's own included; not those above it that were computed again.
        inner = ~new.last & (trie.depth[new.node] >= trie.depth[node[new.user, new.prefix]])
        if self.full and bool(inner.any()):
            # An open prefix is one token below what was computed; the forced tokens behind it cost theirs.
            log_probs, _ = self.scorer(new.hidden[inner], new.node[inner], self.user[new.user[inner]])
            index = new.user[inner] * width + new.prefix[inner]
            total = score.flatten().index_add(0, index, log_probs[:, 0]).view_as(score)
        user, prefix = new.user[new.last], new.prefix[new.last]
        log_probs, child = self.scorer(new.hidden[new.last], new.node[new.last], self.user[user])
        log_probs = log_probs + total[user, prefix][:, None]
        shape = (len(score), width, log_probs.shape[1])
        all_scores = torch.full(shape, -torch.inf, device=score.device)
        all_scores[user, prefix] = log_probs
        children = torch.zeros(shape, dtype=torch.long, device=score.device)
        children[user, prefix] = child
        self._add(all_scores, children, end, new.slot)

    def _stretch_end(self, node: Tensor) -> Tensor:
        """[U, E] how far the forced stretch below a prefix is computed at once.

        Not always to its end: the tokens on the way may already cost too much. So the first look is short,
        and each later one reaches about twice as deep.
        """
        end = self.trie.forced_end[node].long()
        limit = _FIRST_STRETCH + self.trie.depth[node] - 1
        hops = torch.where(self.trie.depth[end] - self.trie.depth[node] < limit, 0, limit - 1)
        near = node
        for hop in range(int(hops.max())):
            near = torch.where(hop < hops, self.trie.child_start[near].long() + 1, near)
        return torch.where(hops == 0, end, near)

    def _add(self, score: Tensor, child: Tensor, parent: Tensor, slot: Tensor) -> None:
        """File scored continuations: titles as finished, prefixes among the open if they exceed the bar.

        Args:
            score: [U, E, C] log-probability of each continuation, from the prompt on; -inf for none.
            child: [U, E, C] its node, -1 for the end of the parent's title.
            parent: [U, E] nodes.
            slot: [U, E] their slots.
        """
        trie = self.trie
        ends = child < 0
        node = torch.where(ends, parent[..., None], child)
        if not self.full:  # forced tokens are certain: go on to the stretch's end, maybe a title's
            skipped = torch.where(ends, node, trie.forced_end[node].long())
            leaf = ~ends & (trie.child_start[skipped + 1] == trie.child_start[skipped])
            node, ends = skipped, ends | leaf
        self.finish(torch.where(ends, score, -torch.inf).flatten(1), node.flatten(1))

        waiting = torch.where(ends, -torch.inf, score).flatten(1)
        wide = (-1, -1, child.shape[2])
        slots = slot[..., None].expand(wide).flatten(1)
        computed = trie.depth[parent].long()[..., None].expand(wide).flatten(1)
        every = torch.cat([self.open_score, waiting], dim=1)
        every = every.masked_fill(every <= self.bar()[:, None], -torch.inf)
        nodes = torch.cat([self.open_node, node.flatten(1)], dim=1)
        kept = int((every > -torch.inf).sum(1).max())
        place = self.urgency(every, nodes).topk(kept, dim=1).indices
        self.open_score, self.open_node = every.gather(1, place), nodes.gather(1, place)
        self.open_slot = torch.cat([self.open_slot, slots], dim=1).gather(1, place)
        self.open_computed = torch.cat([self.open_computed, computed], dim=1).gather(1, place)


def room_needed(trie: TokenTrie, node_budget: int | None) -> int:
    """Answer tokens of a user that a search keeps at a time, for sizing batches."""
    return min(len(trie), _MOST_SLOTS + _PASS_TOKENS, node_budget or len(trie))


def check_search(**counts: int | None) -> None:
    """Raises ConfigError for a number below 1; None is no limit."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1")
