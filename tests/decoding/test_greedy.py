"""Greedy search against a loop that takes the best token."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bearray.decoding import TitleFilter, greedy_search
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

MODELS = [tiny_model(seed) for seed in range(50, 52)]


def loop(step, titles):
    """[(title, score)]: the best token until a title ends."""
    prefix, below, score = (), dict_trie(titles), 0.0
    while titles:
        scores = step(prefix, below)
        token = max(scores, key=scores.__getitem__)
        score += scores[token]
        if token == EOS:
            return [(list(prefix), score)]
        prefix, below = (*prefix, token), below[token]
    return []


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1, 2, 9, 100]),
    normalize=st.sampled_from(["trie", "full"]),
    filtered=st.booleans(),
)
def test_equals_the_loop(seed, size, normalize, filtered):
    model, titles = MODELS[seed % 2], random_catalogue(seed, size)
    ids, mask = random_prompts(seed, [9, 4, 14])
    generator = torch.Generator().manual_seed(seed)
    deny = [torch.randperm(size, generator=generator)[: size // 2 + user].tolist() for user in range(3)]
    result = greedy_search(
        model, ids, mask, TokenTrie.from_sequences(titles), normalize=normalize,
        titles=TitleFilter(deny=deny) if filtered else None,
    )  # fmt: skip
    expected = [
        loop(
            model_step(model, prompt_of(ids, mask, user), normalize),
            allowed_titles(titles, user, deny=deny) if filtered else titles,
        )
        for user in range(3)
    ]
    assert_same_lists(result, expected)
    assert result.scores.shape == (3, 1)


def test_the_normalizer_changes_the_score_and_not_the_title():
    titles = random_catalogue(3, 100)
    ids, mask = random_prompts(3, [9, 4, 14])
    trie = TokenTrie.from_sequences(titles)
    among_valid, over_all = (greedy_search(MODELS[0], ids, mask, trie, normalize=n) for n in ("trie", "full"))
    assert among_valid.sequences == over_all.sequences
    assert (among_valid.scores > over_all.scores).all()
