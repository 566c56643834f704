"""Titles of exactly the same probability: any order will do, but none may be lost, doubled or mis-scored."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bearray.decoding import constrained_beam_search, exact_top_k
from bearray.trie import TokenTrie
from tests.decoding.helpers import random_catalogue, random_prompts, tiny_model
from tests.decoding.test_exact import assert_true_top, score_catalogue

torch.set_num_threads(1)
VOCAB = 120


def twin_model(seed):
    """A model that cannot tell token 2i + 3 from 2i + 4: same embedding, same row of the projection."""
    model = tiny_model(seed, vocab=VOCAB)
    with torch.no_grad():
        for weight in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
            weight[4:VOCAB:2] = weight[3 : VOCAB - 1 : 2]
    return model


def with_twins(titles):
    """Each title, and the same with its last token's twin."""
    both = dict.fromkeys(tuple(t) for t in titles)
    both |= dict.fromkeys((*t[:-1], min(VOCAB - 1, t[-1] + 1 if t[-1] % 2 else t[-1] - 1)) for t in titles)
    return [list(title) for title in both]


MODELS = [twin_model(seed) for seed in range(2)]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1, 4, 30, 80]),
    width=st.integers(1, 12),
    normalize=st.sampled_from(["trie", "full"]),
)
def test_exact_search_keeps_tied_titles(seed, size, width, normalize):
    titles, model = with_twins(random_catalogue(seed, size, vocab=VOCAB)), MODELS[seed % 2]
    ids, mask = random_prompts(seed, [20, 7], vocab=VOCAB)
    scores = score_catalogue(model, ids, mask, titles, normalize)
    result = exact_top_k(model, ids, mask, TokenTrie.from_sequences(titles), k=width, normalize=normalize)
    assert_true_top(result, scores, width)
    assert result.proven.all()


@pytest.mark.parametrize("normalize", ["trie", "full"])
@pytest.mark.parametrize("seed", range(6))
def test_beam_search_keeps_and_scores_tied_titles(seed, normalize):
    """Which of two tied prefixes survives is open, also in `generate`; what a title is worth is not."""
    titles, model = with_twins(random_catalogue(seed, 40, vocab=VOCAB)), MODELS[seed % 2]
    ids, mask = random_prompts(seed, [20, 7, 31], vocab=VOCAB)
    trie = TokenTrie.from_sequences(titles)
    result = constrained_beam_search(model, ids, mask, trie, beam_width=len(titles), normalize=normalize)
    # Wide enough to hold every title: then there is one right answer but for the order of ties.
    scores = score_catalogue(model, ids, mask, titles, normalize)
    assert_true_top(result, scores, len(titles))
    assert (scores.sort(dim=1).values.diff(dim=1) < 1e-6).any()  # there are ties
    narrow = constrained_beam_search(model, ids, mask, trie, beam_width=4, normalize=normalize)
    for user in range(len(ids)):
        ours = dict(zip(map(tuple, narrow.sequences[user]), narrow.scores[user].tolist(), strict=True))
        assert len(ours) == 4
        for title, score in ours.items():
            own = float(scores[user, titles.index(list(title))])
            assert score == pytest.approx(own, rel=1e-4, abs=2e-5)
