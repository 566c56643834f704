"""The observed search against the paper's procedure in plain Python, depth by depth."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bearray.decoding.beam import guided_beam_search
from bearray.decoding.trace import TargetTrace
from bearray.errors import DataError
from bearray.trie import TokenTrie
from tests.decoding.helpers import EOS, dict_trie, random_catalogue, random_prompts, tiny_model
from tests.decoding.naive import model_step, prompt_of

torch.set_num_threads(1)
MODELS = [tiny_model(seed) for seed in range(20, 23)]


def naive_trace(step, titles, target, width):
    """(step at which the target was cut, bar, what became of it): beam search one depth after the other."""
    live, final, depth = [(0.0, [], dict_trie(titles))], [], 0
    while True:
        depth += 1
        candidates = sorted(
            (
                (score + gain, prefix, token, below[token])
                for score, prefix, below in live
                for token, gain in step(tuple(prefix), below).items()
            ),
            key=lambda c: -c[0],
        )
        listed = candidates[: 2 * width]
        running = [c for c in listed if c[2] != EOS]
        live = [(score, [*prefix, token], below) for score, prefix, token, below in running[:width]]
        best = [(score, prefix) for score, prefix, token, _ in listed[:width] if token == EOS]
        final = sorted(final + best, key=lambda f: -f[0])[:width]
        last_listed = listed[-1][0] if len(listed) == 2 * width else -math.inf
        if depth <= len(target):
            if not any(prefix == target[:depth] for _, prefix, _ in live):
                return depth, live[-1][0] if len(live) == width else last_listed, "cut"
        elif depth == len(target) + 1 and not any(prefix == target for _, prefix in final):
            among = candidates[width - 1][0] if len(candidates) >= width else -math.inf
            worst = final[-1][0] if len(final) == width else -math.inf
            return depth, max(among, worst), "cut"
        if not live or (len(final) == width and live[0][0] <= final[-1][0]):
            break
    return 0, math.nan, "kept" if any(prefix == target for _, prefix in final) else "outlived"


def trace_all(model, ids, mask, titles, wanted, width, normalize, **options):
    trie = TokenTrie.from_sequences(titles)
    trace = TargetTrace(trie, wanted)
    result = guided_beam_search(
        model, ids, mask, trie, beam_width=width, normalize=normalize, observer=trace, **options
    )
    return trace, result


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1, 2, 7, 30, 150]),
    lengths=st.lists(st.integers(4, 20), min_size=1, max_size=4),
    width=st.integers(1, 6),
    normalize=st.sampled_from(["trie", "full"]),
    batch_size=st.sampled_from([None, 2]),
)
def test_equals_the_procedure(seed, size, lengths, width, normalize, batch_size):
    titles, model = random_catalogue(seed, size), MODELS[seed % 3]
    ids, mask = random_prompts(seed, lengths)
    wanted = torch.randint(size, (len(ids),), generator=torch.Generator().manual_seed(seed)).tolist()
    trace, result = trace_all(model, ids, mask, titles, wanted, width, normalize, batch_size=batch_size)
    for user, title in enumerate(wanted):
        step = model_step(model, prompt_of(ids, mask, user), normalize)
        cut, bar, fate = naive_trace(step, titles, titles[title], width)
        assert int(trace.cut_step[user]) == cut
        assert float(trace.bar[user]) == pytest.approx(bar, rel=1e-4, abs=1e-4, nan_ok=True)
        assert (title in result.title_ids[user].tolist()) == (fate == "kept")


def test_every_fate_occurs():
    """What the test above compares is not always the same case."""
    titles, seen = random_catalogue(5, 150), set()
    ids, mask = random_prompts(5, [12] * 40)
    wanted = [(7 * user) % 150 for user in range(40)]
    for width in (1, 4, 16):
        trace, _ = trace_all(MODELS[0], ids, mask, titles, wanted, width, "trie")
        for user, title in enumerate(wanted):
            step = model_step(MODELS[0], prompt_of(ids, mask, user), "trie")
            cut, _, fate = naive_trace(step, titles, titles[title], width)
            assert int(trace.cut_step[user]) == cut
            ends = "at its end" if cut == len(titles[title]) + 1 else "on the way"
            seen.add((fate, ends) if fate == "cut" else fate)
    assert seen >= {("cut", "at its end"), ("cut", "on the way"), "kept"}


def test_titles_are_checked():
    trie = TokenTrie.from_sequences([[5, 6], [7]])
    with pytest.raises(DataError, match=r"titles\[0\] is 2"):
        TargetTrace(trie, [2])
