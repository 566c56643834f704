"""The flat trie against a dictionary of dictionaries."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bearray.errors import DataError
from bearray.trie import TokenTrie

torch.set_num_threads(1)
EOS = 99
END = "end"
sequences_strategy = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=6), min_size=1, max_size=30)


def naive(sequences):
    """{token: subtree}, with END -> index of the first sequence that ends here."""
    root: dict = {}
    for index, sequence in enumerate(sequences):
        node = root
        for token in sequence:
            node = node.setdefault(token, {})
        node.setdefault(END, index)
    return root


def walk(node, prefix=()):
    yield prefix, node
    for token, child in node.items():
        if token != END:
            yield from walk(child, (*prefix, token))


@settings(max_examples=150, deadline=None)
@given(sequences_strategy)
def test_every_prefix_has_its_node_children_and_end(sequences):
    trie = TokenTrie.from_sequences(sequences)
    prefixes = dict(walk(naive(sequences)))
    nodes = {prefix: trie.find(prefix) for prefix in prefixes}
    assert sorted(nodes.values()) == list(range(len(trie)))
    assert trie.num_sequences == len(sequences)
    assert trie.max_depth == max(map(len, sequences))
    order = list(prefixes)
    at = torch.tensor([nodes[prefix] for prefix in order])
    tokens, valid = trie.candidates(at, EOS)
    child, child_valid = trie.children(at)
    assert torch.equal(valid, child_valid)
    assert tokens.shape[1] == int(trie.child_count(at).max())
    for row, prefix in enumerate(order):
        below = prefixes[prefix]
        wanted = sorted(token for token in below if token != END)
        found = tokens[row][valid[row]].tolist()
        assert found == wanted + ([EOS] if END in below else [])
        assert int(trie.child_count(at)[row]) == len(found)
        assert child[row][valid[row]].tolist() == [nodes[(*prefix, t)] for t in wanted] + [-1] * (
            END in below
        )
        assert int(trie.terminal[nodes[prefix]]) == below.get(END, -1)
        assert int(trie.depth[nodes[prefix]]) == len(prefix)
        assert int(trie.parent[nodes[prefix]]) == nodes[prefix[:-1]]
        assert not tokens[row][~valid[row]].any()
    assert trie.sequences_at(at) == [list(prefix) for prefix in order]


@settings(max_examples=100, deadline=None)
@given(sequences_strategy)
def test_a_forced_stretch_ends_where_the_first_choice_or_the_leaf_is(sequences):
    trie = TokenTrie.from_sequences(sequences)
    for prefix, node in walk(naive(sequences)):
        end = prefix
        while len(node) == 1 and END not in node:
            (token,) = node
            node, end = node[token], (*end, token)
        assert int(trie.forced_end[trie.find(prefix)]) == trie.find(end)


@settings(max_examples=100, deadline=None)
@given(sequences_strategy)
def test_path_nodes_are_those_before_each_token(sequences):
    trie = TokenTrie.from_sequences(sequences)
    expected = [[trie.find(seq[:i]) for i in range(len(seq) + 1)] for seq in sequences]
    assert trie.path_nodes(sequences) == expected


@settings(max_examples=100, deadline=None)
@given(sequences_strategy, st.lists(st.integers(0, 7), max_size=7))
def test_unknown_prefixes_are_not_found(sequences, prefix):
    known = dict(walk(naive(sequences)))
    assert (TokenTrie.from_sequences(sequences).find(prefix) >= 0) == (tuple(prefix) in known)


def test_children_are_breadth_first_and_sorted():
    trie = TokenTrie.from_sequences([[5, 1], [3], [5, 0, 2], [5, 0]])
    assert trie.child_start.tolist() == [0, 2, 2, 4, 5, 5, 5]
    assert trie.child_token.tolist() == [3, 5, 0, 1, 2]
    assert trie.terminal.tolist() == [-1, 1, -1, 3, 0, 2]
    assert trie.parent.tolist() == [0, 0, 0, 2, 2, 3]
    assert len(trie) == 6


def test_equal_sequences_share_a_node_that_names_the_first():
    trie = TokenTrie.from_sequences([[1, 2], [7], [1, 2], [7]])
    assert (int(trie.terminal[trie.find([1, 2])]), int(trie.terminal[trie.find([7])])) == (0, 1)
    assert trie.num_sequences == 4


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([], "no sequences"),
        ([[1], [2, 3], []], "sequence 2 has no tokens"),
        ([[1], [2, -3, 4]], "sequence 1 holds token -3"),
    ],
)
def test_bad_sequences_are_named(sequences, message):
    with pytest.raises(ValueError, match=message) as caught:
        TokenTrie.from_sequences(sequences)
    assert isinstance(caught.value, DataError)


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([[1, 2], [1, 9]], "sequence 1 is not in the trie: no title has its token 1"),
        ([[9]], "sequence 0 is not in the trie"),
        ([[-1]], "sequence 0 is not in the trie"),
        ([[1, 2], [4], [1]], "sequence 2 is not in the trie: it is only the start of a title"),
    ],
)
def test_paths_outside_the_trie_are_named(sequences, message):
    trie = TokenTrie.from_sequences([[1, 2], [4]])
    with pytest.raises(DataError, match=message):
        trie.path_nodes(sequences)


def test_to_keeps_the_trie_where_it_is():
    trie = TokenTrie.from_sequences([[1, 2], [4]])
    assert trie.to("cpu") is trie
    assert trie.to("meta").device.type == "meta"


def test_a_large_catalogue_is_built_without_a_python_node():
    # 100,000 titles take about 0.2 s, seconds with a dictionary a node; the limit leaves room.
    rng = np.random.default_rng(0)
    sequences = (rng.zipf(1.3, size=(100_000, 12)) % 50_000).tolist()
    start = time.perf_counter()
    trie = TokenTrie.from_sequences(sequences)
    assert time.perf_counter() - start < 5
    assert trie.sequences_at(torch.tensor([trie.path_nodes(sequences[:1])[0][-1]])) == sequences[:1]
