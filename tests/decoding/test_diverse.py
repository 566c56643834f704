"""Diverse beam search against groups of lists and dictionaries."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bearray.decoding import TitleFilter, constrained_beam_search, diverse_beam_search
from bearray.errors import ConfigError
from bearray.trie import TokenTrie
from tests.decoding.helpers import (
    EOS,
    assert_same_lists,
    dict_trie,
    random_catalogue,
    random_prompts,
    tiny_model,
)
from tests.decoding.naive import allowed_titles, model_step, prompt_of

MODELS = [tiny_model(seed) for seed in range(60, 62)]


def diverse(step, titles, groups: int, width: int, penalty: float):
    """[(title, log-probability)] of all groups, best first, each title once."""
    if not titles:
        return []
    live = [[(0.0, 0.0, (), dict_trie(titles))] for _ in range(groups)]  # (paid, log-probability, ...)
    final: list[list[tuple]] = [[] for _ in range(groups)]
    while any(live):
        counts: dict[int, int] = {}
        for g in range(groups):
            candidates = []
            for paid, log_prob, prefix, below in live[g]:
                for token, gain in step(prefix, below).items():
                    cost = 0.0 if token == EOS else penalty * counts.get(token, 0)
                    candidates.append((paid + gain - cost, log_prob + gain, prefix, token, below[token]))
            candidates.sort(key=lambda c: -c[0])
            live[g] = []
            for rank, (paid, log_prob, prefix, token, below) in enumerate(candidates[: 2 * width]):
                if token == EOS:
                    final[g] += [(paid, log_prob, prefix)] if rank < width else []
                elif len(live[g]) < width:
                    live[g].append((paid, log_prob, (*prefix, token), below))
            for *_, prefix, _ in live[g]:
                counts[prefix[-1]] = counts.get(prefix[-1], 0) + 1
            final[g] = sorted(final[g], key=lambda f: -f[0])[:width]
            if len(final[g]) == width and live[g] and live[g][0][0] <= final[g][-1][0]:
                live[g] = []
    found = {prefix: log_prob for group in final for _, log_prob, prefix in group}
    return sorted(((list(p), s) for p, s in found.items()), key=lambda f: -f[1])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1, 2, 9, 40, 120]),
    shape=st.sampled_from([(1, 4), (2, 1), (2, 3), (3, 2), (5, 2), (6, 1)]),
    penalty=st.sampled_from([0.0, 0.4, 2.0, 30.0]),
    normalize=st.sampled_from(["trie", "full"]),
    filtered=st.booleans(),
)
def test_equals_the_dictionary_version(seed, size, shape, penalty, normalize, filtered):
    groups, width = shape
    model, titles = MODELS[seed % 2], random_catalogue(seed, size)
    ids, mask = random_prompts(seed, [9, 4, 14])
    generator = torch.Generator().manual_seed(seed)
    allow = [torch.randperm(size, generator=generator)[: size // (user + 1)].tolist() for user in range(3)]
    allow[1] = []
    result = diverse_beam_search(
        model, ids, mask, TokenTrie.from_sequences(titles), beam_width=groups * width, groups=groups,
        penalty=penalty, normalize=normalize, titles=TitleFilter(allow=allow) if filtered else None,
    )  # fmt: skip
    expected = [
        diverse(
            model_step(model, prompt_of(ids, mask, user), normalize),
            allowed_titles(titles, user, allow=allow) if filtered else titles,
            groups,
            width,
            penalty,
        )
        for user in range(3)
    ]
    assert_same_lists(result, expected)
    assert result.scores.shape == result.title_ids.shape == (3, groups * width)
    assert [[titles[i] for i in row if i >= 0] for row in result.title_ids.tolist()] == result.sequences


@pytest.mark.parametrize("normalize", ["trie", "full"])
def test_one_group_is_beam_search(normalize):
    titles = random_catalogue(3, 150)
    ids, mask = random_prompts(4, [20, 7, 11])
    trie = TokenTrie.from_sequences(titles)
    plain = constrained_beam_search(MODELS[0], ids, mask, trie, beam_width=8, normalize=normalize)
    ours = diverse_beam_search(
        MODELS[0], ids, mask, trie, beam_width=8, groups=1, penalty=0.0, normalize=normalize
    )
    assert ours.sequences == plain.sequences
    torch.testing.assert_close(ours.scores, plain.scores)
    assert not ours.certified.any()


def test_groups_without_a_penalty_find_one_group_s_titles():
    titles = random_catalogue(3, 150)
    ids, mask = random_prompts(4, [20, 7, 11])
    trie = TokenTrie.from_sequences(titles)
    plain = constrained_beam_search(MODELS[0], ids, mask, trie, beam_width=2)
    ours = diverse_beam_search(MODELS[0], ids, mask, trie, beam_width=8, groups=4, penalty=0.0)
    assert ours.sequences == plain.sequences
    assert (ours.title_ids[:, 2:] == -1).all()


def test_a_penalty_spreads_the_first_tokens():
    titles = random_catalogue(5, 300)
    ids, mask = random_prompts(5, [12] * 10)
    trie = TokenTrie.from_sequences(titles)

    def first_tokens(penalty):
        found = diverse_beam_search(MODELS[1], ids, mask, trie, beam_width=6, groups=6, penalty=penalty)
        return [len({title[0] for title in row}) for row in found.sequences]

    assert first_tokens(0.0) == [1] * 10
    assert first_tokens(1000.0) == [6] * 10


def test_batches_of_any_size_give_the_same_lists():
    titles = random_catalogue(9, 150)
    ids, mask = random_prompts(7, [30, 4, 60, 12, 9])
    trie = TokenTrie.from_sequences(titles)
    whole = diverse_beam_search(MODELS[0], ids, mask, trie)
    parts = diverse_beam_search(MODELS[0], ids, mask, trie, batch_size=2)
    assert parts.sequences == whole.sequences
    torch.testing.assert_close(parts.scores, whole.scores)


def test_certain_tokens_cost_no_pass():
    titles = [[first, *range(20, 29)] for first in range(3, 19)]
    ids, mask = random_prompts(9, [20, 11])
    trie = TokenTrie.from_sequences(titles)
    options = {"beam_width": 6, "groups": 3}
    assert diverse_beam_search(MODELS[0], ids, mask, trie, **options).forward_passes == 1
    full = diverse_beam_search(MODELS[0], ids, mask, trie, normalize="full", **options)
    assert full.forward_passes == 11


def test_bad_settings_are_named():
    trie = TokenTrie.from_sequences([[5, 6], [7]])
    ids, mask = random_prompts(13, [5, 9])
    for options, message in (
        ({"beam_width": 10, "groups": 3}, "groups is 3; it must divide beam_width, 10"),
        ({"groups": 0}, "groups is 0"),
        ({"beam_width": 0}, "beam_width is 0"),
        ({"penalty": -1.0}, r"penalty is -1\.0"),
        ({"penalty": math.inf}, "penalty is inf"),
    ):
        with pytest.raises(ConfigError, match=message):
            diverse_beam_search(MODELS[0], ids, mask, trie, **options)
