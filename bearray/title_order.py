"""Titles in the order of a walk through the trie: below every node they are one interval.

That turns questions about sets of titles into arithmetic on interval ends: how many allowed titles are left
below a prefix, or how much of a user's probability over items lies there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from bearray.trie import TokenTrie


@dataclass(frozen=True, eq=False)
class TitleOrder:
    """Places of titles and intervals of nodes; build it with `title_order`, or take `TokenTrie.title_order`.

    A title that ends at an inner node comes before those that go on from there.
    """

    first: Tensor
    """[nodes] int32, place of the first title at or below each node."""
    end: Tensor
    """[nodes] int32, one past the place of the last."""
    place: Tensor
    """[sequences] int32, place of each title; -1 for one that equals an earlier one (the trie holds that)."""

    def intervals(self, nodes: Tensor, child: Tensor) -> tuple[Tensor, Tensor]:
        """The titles that each continuation leads to.

        Args:
            nodes: [N] trie nodes.
            child: [N, K] their continuations, as `TokenTrie.children` gives them (-1: the node's own title).

        Returns:
            (first, end) [N, K] long: places [first, end).
        """
        own = self.first[nodes].long()[:, None]
        below = child.clamp(min=0)
        ends = child < 0
        first = torch.where(ends, own, self.first[below].long())
        return first, torch.where(ends, own + 1, self.end[below].long())


def title_order(trie: TokenTrie) -> TitleOrder:
    """Number a trie's titles in the order of a depth-first walk; the tensors are on the trie's device."""
    start = trie.child_start.cpu().numpy().astype(np.int64)
    terminal = trie.terminal.cpu().numpy()
    parent = trie.parent.cpu().numpy()
    level = np.searchsorted(trie.depth.cpu().numpy(), np.arange(trie.max_depth + 2))  # nodes lie by depth
    ends = (terminal >= 0).astype(np.int64)
    count = ends.copy()  # titles at or below each node
    for depth in range(trie.max_depth, 0, -1):
        low, high = level[depth - 1], level[depth]
        here = slice(high, level[depth + 1])
        below = np.bincount(parent[here] - low, count[here], minlength=high - low)
        count[low:high] += below.astype(np.int64)
    before = np.concatenate([[0], np.cumsum(count)])  # titles below all nodes with a lower number
    first = np.zeros(len(count), dtype=np.int64)
    for depth in range(1, trie.max_depth + 1):
        node = np.arange(level[depth], level[depth + 1])
        above = parent[node]
        # Siblings lie side by side: those before a node are the nodes from its parent's first child on.
        first[node] = first[above] + ends[above] + before[node] - before[start[above] + 1]
    place = np.full(trie.num_sequences, -1, dtype=np.int64)
    nodes = np.flatnonzero(ends)
    place[terminal[nodes]] = first[nodes]

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.int32)).to(trie.device)

    return TitleOrder(first=tensor(first), end=tensor(first + count), place=tensor(place))
