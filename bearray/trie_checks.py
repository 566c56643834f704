"""Whether arrays that were read from a file are a token trie, so that decoding never follows a wrong number.

A checksum tells damage, not intent: a file made by others may have the right sums and edges that lead
nowhere. The checks are a few passes over the arrays, about 0.1 microseconds a node.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np


def trie_fault(arrays: Mapping[str, np.ndarray], *, num_sequences: int, max_depth: int) -> str:
    """What makes the arrays of `TokenTrie` no trie, in words; empty where nothing does.

    Breadth-first order is what all else follows from: depths rise by at most one from node to node, a node's
    parent lies one level above it, and its children are the edges from `child_start[node]` on, by rising
    token.
    """
    start, token, terminal, parent, depth, end = (
        arrays[name] for name in ("child_start", "child_token", "terminal", "parent", "depth", "forced_end")
    )
    nodes = len(parent)
    if nodes < 2:
        return f"it has {nodes} nodes; a title needs two"
    if start[0] != 0 or start[-1] != nodes - 1 or (np.diff(start) < 0).any():
        return "child_start does not cut the edges into nodes"
    if (parent[1:] != np.repeat(np.arange(nodes, dtype=np.int32), np.diff(start))).any() or parent[0] != 0:
        return "parent and child_start say different things"
    if (parent[1:] >= np.arange(1, nodes)).any():
        return "a node lies before its parent"
    if depth[0] != 0 or (depth[1:] != depth[parent[1:]] + 1).any() or (np.diff(depth) < 0).any():
        return "depth is not the number of tokens from the root"
    if depth[-1] != max_depth:
        return f"max_depth is {max_depth}, but the deepest node is at {depth[-1]}"
    if token.min() < 0 or (np.diff(token)[parent[1:-1] == parent[2:]] <= 0).any():
        return "the children of a node are not in order of their tokens"
    if num_sequences > np.iinfo(np.int32).max:  # more cannot be numbered
        return f"num_sequences is {num_sequences}"
    ends = terminal[terminal >= 0]
    if terminal.min() < -1 or terminal.max() >= num_sequences or len(np.unique(ends)) != len(ends):
        return "terminal does not name sequences"
    if (terminal[np.diff(start) == 0] < 0).any():
        return "a leaf ends no title"
    single = (np.diff(start) == 1) & (terminal < 0)
    expected = np.arange(nodes, dtype=np.int32)
    for low, high in reversed(_levels(depth)):  # a forced stretch ends where that of its only child does
        here = np.arange(low, high)[single[low:high]]
        expected[here] = expected[start[here] + 1]
    return "" if (end == expected).all() else "forced_end is not where forced stretches end"


def _levels(depth: np.ndarray) -> list[tuple[int, int]]:
    """(first node, node behind the last) of each level."""
    bounds = np.searchsorted(depth, np.arange(int(depth[-1]) + 2))
    return [(int(a), int(b)) for a, b in pairwise(bounds)]
