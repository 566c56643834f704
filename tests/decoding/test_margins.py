"""Margins against beam search in plain Python, depth by depth."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bearray.decoding.beam import guided_beam_search
from bearray.decoding.margins import MarginTrace
from bearray.errors import DataError
from bearray.trie import TokenTrie
from tests.decoding.helpers import EOS, dict_trie, random_catalogue, random_prompts, tiny_model
from tests.decoding.naive import model_step, prompt_of

MODELS = [tiny_model(seed) for seed in range(20, 23)]


def naive_margins(step, titles, width):
    """Of every title: (smallest distance from the best prefix dropped beside it while it was in the beam,
    step at which it left)."""
    live, stored, depth = [(0.0, [], dict_trie(titles))], [], 0
    margin, cut = [math.inf] * len(titles), [0] * len(titles)
    while True:
        depth += 1
        candidates = sorted(
            (
                (score + gain, [*prefix, token], below[token])
                for score, prefix, below in live
                for token, gain in step(tuple(prefix), below).items()
            ),
            key=lambda c: -c[0],
        )
        listed = candidates[: 2 * width]
        running = [c for c in listed if c[1][-1] != EOS]
        live = running[:width]
        stored += [score for score, prefix, _ in listed[:width] if prefix[-1] == EOS]
        stored = sorted(stored, reverse=True)[:width]
        last_listed = listed[-1][0] if len(listed) == 2 * width else -math.inf
        rival = running[width][0] if len(running) > width else last_listed
        for i, title in enumerate(titles):
            if cut[i] or depth > len(title):
                continue
            own = [score for score, prefix, _ in live if prefix == title[:depth]]
            if own:
                margin[i] = min(margin[i], own[0] - rival)
            else:
                cut[i] = depth
        if not live or (len(stored) == width and live[0][0] <= stored[-1]):
            return margin, cut


def traced(model, ids, mask, trie, width, normalize, **options):
    trace = MarginTrace(trie, len(ids), width, "cpu")
    result = guided_beam_search(
        model, ids, mask, trie, beam_width=width, normalize=normalize, observer=trace, **options
    )
    return trace, result


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1, 2, 7, 30, 120]),
    lengths=st.lists(st.integers(4, 20), min_size=1, max_size=4),
    width=st.integers(1, 6),
    normalize=st.sampled_from(["trie", "full"]),
    batch_size=st.sampled_from([None, 2]),
)
def test_equals_the_procedure(seed, size, lengths, width, normalize, batch_size):
    titles, model = random_catalogue(seed, size), MODELS[seed % 3]
    trie = TokenTrie.from_sequences(titles)
    ids, mask = random_prompts(seed, lengths)
    trace, _ = traced(model, ids, mask, trie, width, normalize, batch_size=batch_size)
    margin, cut = trace.of(torch.arange(size).expand(len(ids), -1))
    for user in range(len(ids)):
        step = model_step(model, prompt_of(ids, mask, user), normalize)
        wanted, left = naive_margins(step, titles, width)
        assert cut[user].tolist() == left
        assert margin[user].tolist() == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_what_was_found_was_never_below_what_was_dropped_and_a_wider_beam_leaves_more_room():
    titles = random_catalogue(5, 150)
    trie = TokenTrie.from_sequences(titles)
    ids, mask = random_prompts(5, [12] * 20)
    _, narrow = traced(MODELS[0], ids, mask, trie, 4, "trie")
    rooms = []
    for width in (4, 12):
        trace, found = traced(MODELS[0], ids, mask, trie, width, "trie")
        margin, cut = trace.of(found.title_ids)
        kept = found.title_ids >= 0
        assert bool((margin[kept] >= 0).all()) and not cut.any()
        rooms.append(trace.of(narrow.title_ids[:, :1])[0])
    assert bool((rooms[1] >= rooms[0]).all()) and bool((rooms[1] > rooms[0]).any())


def test_a_place_without_a_title_has_no_margin_and_an_unknown_title_is_an_error():
    trie = TokenTrie.from_sequences([[5, 6], [7]])
    ids, mask = random_prompts(0, [4])
    trace, _ = traced(MODELS[0], ids, mask, trie, 3, "trie")
    margin, cut = trace.of(torch.tensor([[0, -1]]))
    assert math.isinf(float(margin[0, 1])) and not cut.any()
    assert trace.of(torch.tensor([[-1]]))[0].tolist() == [[math.inf]]
    with pytest.raises(DataError, match=r"titles\[0\] is 9"):
        trace.of(torch.tensor([[9]]))
