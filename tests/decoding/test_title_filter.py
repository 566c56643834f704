"""Title sets per user against a trie built anew from each user's titles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bearray.decoding import TitleFilter, constrained_beam_search, exact_top_k
from bearray.errors import ConfigError, DataError
from bearray.trie import TokenTrie
from tests.decoding.helpers import random_catalogue, random_prompts, tiny_model
from tests.decoding.naive import allowed_titles

MODELS = [tiny_model(seed) for seed in range(30, 32)]


def beam(model, ids, mask, trie, width, **options):
    return constrained_beam_search(model, ids, mask, trie, beam_width=width, **options)


def exact(model, ids, mask, trie, width, **options):
    return exact_top_k(model, ids, mask, trie, k=width, **options)


def random_sets(seed: int, users: int, size: int) -> list[list[int]]:
    """None, one, some and all of the titles, in any order, some twice."""
    rng = np.random.default_rng(seed)
    counts = [0, 1, size, *rng.integers(0, size + 1, users)][:users]
    sets = [rng.permutation(size)[:count].tolist() for count in counts]
    return [chosen + chosen[:2] for chosen in sets]


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1, 2, 8, 50, 150]),
    width=st.integers(1, 12),
    normalize=st.sampled_from(["trie", "full"]),
    search=st.sampled_from([beam, exact]),
    kind=st.sampled_from(["allow", "deny", "both"]),
    batch_size=st.sampled_from([None, 2]),
)
def test_equals_a_trie_built_anew(seed, size, width, normalize, search, kind, batch_size):
    model, titles = MODELS[seed % 2], random_catalogue(seed, size)
    ids, mask = random_prompts(seed, [6, 15, 9, 4, 11])
    sets = {}
    if kind in ("allow", "both"):
        sets["allow"] = random_sets(seed, 5, size)[:: (-1 if kind == "both" else 1)]
    if kind in ("deny", "both"):
        sets["deny"] = random_sets(seed + 1, 5, size)
    result = search(
        model, ids, mask, TokenTrie.from_sequences(titles), width, normalize=normalize,
        titles=TitleFilter(**sets), batch_size=batch_size,
    )  # fmt: skip
    for user in range(5):
        left = allowed_titles(titles, user, **sets)
        if not left:
            assert result.sequences[user] == []
            assert result.title_ids[user].tolist() == [-1] * width
            assert (result.scores[user] == -torch.inf).all()
            continue
        alone = search(
            model, ids[user : user + 1], mask[user : user + 1], TokenTrie.from_sequences(left), width,
            normalize=normalize,
        )  # fmt: skip
        torch.testing.assert_close(result.scores[user], alone.scores[0], rtol=1e-5, atol=1e-5)
        assert set(map(tuple, result.sequences[user])) == set(map(tuple, alone.sequences[0]))
        assert [titles[i] for i in result.title_ids[user].tolist() if i >= 0] == result.sequences[user]
        assert bool(result.certified[user]) == bool(alone.certified[0])


@pytest.mark.parametrize("search", [beam, exact])
def test_sets_may_be_arrays_tuples_or_one_object_for_all(search):
    titles = random_catalogue(4, 30)
    ids, mask = random_prompts(2, [8, 12])
    trie, stock = TokenTrie.from_sequences(titles), [3, 8, 8, 20, 4]
    expected = search(MODELS[0], ids, mask, trie, 4, titles=TitleFilter(allow=[stock, list(stock)]))
    for sets in (
        [stock] * 2,
        [tuple(stock)] * 2,
        [np.array(stock, dtype=np.int32), np.array(stock)],
        np.array([stock, stock]),
    ):
        got = search(MODELS[0], ids, mask, trie, 4, titles=TitleFilter(allow=sets))
        assert got.sequences == expected.sequences
        assert torch.equal(got.scores, expected.scores)
    assert sorted(expected.title_ids[0].tolist()) == [3, 4, 8, 20]


def test_titles_with_equal_tokens_are_named_by_the_first():
    titles = [[5, 6], [7], [5, 6], [8]]
    trie = TokenTrie.from_sequences(titles)
    ids, mask = random_prompts(2, [8])
    result = beam(MODELS[0], ids, mask, trie, 4, titles=TitleFilter(deny=[[0]]))
    assert sorted(result.title_ids[0].tolist()) == [-1, -1, 1, 3]
    with pytest.raises(DataError, match=r"deny\[0\] holds title 2, which has the same tokens"):
        beam(MODELS[0], ids, mask, trie, 4, titles=TitleFilter(deny=[[2]]))


@pytest.mark.parametrize("normalize", ["trie", "full"])
@pytest.mark.parametrize("search", [beam, exact])
def test_nothing_allowed_is_an_empty_list_also_where_all_tokens_are_forced(search, normalize):
    ids, mask = random_prompts(2, [8, 9])
    trie = TokenTrie.from_sequences([[5, 6, 7]])
    result = search(MODELS[0], ids, mask, trie, 2, normalize=normalize, titles=TitleFilter(allow=[[], [0]]))
    assert result.sequences == [[], [[5, 6, 7]]]
    assert torch.isinf(result.scores[0]).all()


def test_the_living_titles_by_place():
    titles = random_catalogue(7, 20)
    trie = TokenTrie.from_sequences(titles)
    place = trie.title_order.place
    for sets, expected in (
        (TitleFilter(allow=[[2, 5], [], range(20)]), [{2, 5}, set(), set(range(20))]),
        (TitleFilter(deny=[[2, 5], [], range(20)]), [set(range(20)) - {2, 5}, set(range(20)), set()]),
    ):
        table = sets.on(trie, [0, 1, 2]).mask(3)
        got = [{i for i in range(20) if table[user, place[i]]} for user in range(3)]
        assert got == expected


def test_bad_sets_are_named():
    trie = TokenTrie.from_sequences([[5, 6], [7]])
    ids, mask = random_prompts(13, [5, 9])
    with pytest.raises(ConfigError, match=r"needs allow=\.\.\., deny=\.\.\. or both"):
        TitleFilter()
    with pytest.raises(ConfigError, match="allow is for 1 users and deny for 2"):
        TitleFilter(allow=[[0]], deny=[[0], [1]])
    for search in (beam, exact):
        with pytest.raises(DataError, match="the title filter is for 3 users, but there are 2 prompts"):
            search(MODELS[0], ids, mask, trie, 2, titles=TitleFilter(deny=[[0]] * 3))
        with pytest.raises(DataError, match=r"deny\[1\] holds title 2, but the trie's titles are 0 to 1"):
            search(MODELS[0], ids, mask, trie, 2, titles=TitleFilter(deny=[[0], [2]]))
        with pytest.raises(DataError, match=r"allow\[0\] holds title -1"):
            search(MODELS[0], ids, mask, trie, 2, titles=TitleFilter(allow=[[-1], [1]]))
