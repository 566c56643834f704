"""Places of titles against a depth-first walk over dictionaries."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bearray.trie import TokenTrie

SEQUENCES = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=5).map(tuple), min_size=1, max_size=25)


def walk(
    sequences: list[tuple[int, ...]],
) -> tuple[list[tuple[int, ...]], dict[tuple[int, ...], tuple[int, int]]]:
    """The distinct sequences in depth-first order, and the interval of those that start with each prefix."""
    inside: dict[tuple[int, ...], tuple[int, int]] = {}
    order: list[tuple[int, ...]] = []

    def visit(prefix: tuple[int, ...]) -> None:
        first = len(order)
        if prefix in sequences:
            order.append(prefix)
        longer = {s[len(prefix)] for s in sequences if len(s) > len(prefix) and s[: len(prefix)] == prefix}
        for token in sorted(longer):
            visit((*prefix, token))
        inside[prefix] = (first, len(order))

    visit(())
    return order, inside


@settings(max_examples=150, deadline=None)
@given(SEQUENCES)
def test_places_and_intervals_are_those_of_a_walk(sequences):
    trie = TokenTrie.from_sequences([list(s) for s in sequences])
    got = trie.title_order
    order, inside = walk(sequences)
    assert got.place.tolist() == [
        order.index(s) if s not in sequences[:i] else -1 for i, s in enumerate(sequences)
    ]
    paths = trie.sequences_at(torch.arange(len(trie)))
    assert [(a, b) for a, b in zip(got.first.tolist(), got.end.tolist(), strict=True)] == [
        inside[tuple(path)] for path in paths
    ]


@settings(max_examples=100, deadline=None)
@given(SEQUENCES)
def test_intervals_of_continuations(sequences):
    trie = TokenTrie.from_sequences([list(s) for s in sequences])
    order, inside = walk(sequences)
    nodes = torch.arange(len(trie))
    child, valid = trie.children(nodes)
    first, end = trie.title_order.intervals(nodes, child)
    paths = trie.sequences_at(nodes)
    for node in range(len(trie)):
        for column in range(child.shape[1]):
            if not valid[node, column]:
                continue
            to = int(child[node, column])
            here = order.index(tuple(paths[node])) if to < 0 else -1
            expected = (here, here + 1) if to < 0 else inside[tuple(paths[to])]
            assert (int(first[node, column]), int(end[node, column])) == expected


def test_it_is_made_once_and_lies_where_the_trie_lies():
    trie = TokenTrie.from_sequences([[5, 6], [5], [7]])
    assert trie.title_order is trie.title_order
    assert trie.title_order.place.device == trie.device
    assert trie.title_order.place.tolist() == [1, 0, 2]  # a title comes before those that go on from it
