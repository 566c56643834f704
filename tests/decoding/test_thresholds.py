"""Thresholds of objective (3.1) against a beam search made of lists."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bearray.decoding.thresholds import beam_thresholds
from bearray.trie import TokenTrie
from tests.decoding.helpers import EOS, dict_trie, random_catalogue, random_prompts, tiny_model
from tests.decoding.naive import model_step, prompt_of

torch.set_num_threads(1)
MODELS = [tiny_model(seed) for seed in (41, 42)]


def naive_thresholds(step, titles, width):
    """The width-th best of running prefixes and ended titles after each token, by the book."""
    live, ended, found = [(0.0, (), dict_trie(titles))], [], []
    while live:
        candidates = [
            (score + gain, prefix, token, below[token])
            for score, prefix, below in live
            for token, gain in step(prefix, below).items()
        ]
        candidates.sort(key=lambda c: -c[0])
        live = []
        for rank, (score, prefix, token, below) in enumerate(candidates[: 2 * width]):
            if token == EOS:
                ended += [score] if rank < width else []
            elif len(live) < width:
                live.append((score, (*prefix, token), below))
        ended = sorted(ended, reverse=True)[:width]
        together = sorted([*ended, *(score for score, *_ in live)], reverse=True)
        found.append(together[width - 1] if len(together) >= width else -math.inf)
        if len(ended) == width and live and live[0][0] <= ended[-1]:
            break
    return found + [found[-1]] * (max(map(len, titles)) + 1 - len(found))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1, 3, 12, 80]),
    lengths=st.lists(st.integers(4, 30), min_size=1, max_size=3),
    width=st.integers(1, 12),
    normalize=st.sampled_from(["trie", "full"]),
)
def test_equal_the_book(seed, size, lengths, width, normalize):
    titles, model = random_catalogue(seed, size), MODELS[seed % 2]
    ids, mask = random_prompts(seed, lengths)
    trie = TokenTrie.from_sequences(titles)
    ours = beam_thresholds(model, ids, mask, trie, beam_width=width, normalize=normalize, batch_size=2)
    expected = [
        naive_thresholds(model_step(model, prompt_of(ids, mask, u), normalize), titles, width)
        for u in range(len(lengths))
    ]
    torch.testing.assert_close(ours, torch.tensor(expected), rtol=1e-4, atol=3e-5)


@pytest.mark.parametrize("normalize", ["trie", "full"])
def test_a_title_that_is_found_was_never_below_them(normalize):
    """And a catalogue smaller than the beam has none."""
    titles, model = random_catalogue(3, 60), MODELS[0]
    ids, mask = random_prompts(3, [20, 9])
    trie = TokenTrie.from_sequences(titles)
    wide = beam_thresholds(model, ids, mask, trie, beam_width=61, normalize=normalize)
    assert (wide == -torch.inf).all()
    narrow = beam_thresholds(model, ids, mask, trie, beam_width=5, normalize=normalize)
    assert (narrow.diff(dim=1) <= 1e-6).all()  # a longer prefix is never likelier
    assert (narrow[:, -1] > -torch.inf).all()
