"""Every column of `measure` against plain Python: dictionaries, lists, one forward pass a prefix, float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bearray.config import DecodingConfig
from bearray.errors import ConfigError
from bearray.pruning import COLUMNS, measure
from bearray.task import Case
from bearray.trie import TokenTrie
from tests.decoding.helpers import EOS, PAD, random_catalogue, random_prompts, tiny_model
from tests.decoding.naive import beam_search, dict_trie, model_step, prompt_of
from tests.decoding.test_trace import naive_trace

torch.set_num_threads(1)
MODELS = [tiny_model(seed) for seed in range(20, 23)]


def make_cases(seed, titles, lengths):
    """Cases whose targets lie anywhere in the catalogue."""
    ids, mask = random_prompts(seed, lengths)
    rng = np.random.default_rng(seed)
    return [
        Case(row=100 + i, user=i // 2, prompt=prompt_of(ids, mask, i), target_item=1000 + title,
             target_title=title, warm=bool(i % 3))
        for i, title in enumerate(rng.integers(0, len(titles), len(lengths)).tolist())
    ]  # fmt: skip


def path_scores(step, titles, title):
    """The log-probabilities of a title's steps, and of all valid tokens at each."""
    node, own, every = dict_trie(titles), [], []
    for i, token in enumerate([*title, EOS]):
        scores = step(tuple(title[:i]), node)
        own.append(scores[token])
        every.append(sorted(scores.values(), reverse=True))
        node = node[token]
    return own, every


def place(titles, ranked):
    """Of each title, where it stands in a list of titles."""
    return [float(ranked.index(title)) if title in ranked else math.inf for title in titles]


def naive_row(model, case, titles, width, widths, normalize):
    step = model_step(model, case.prompt, normalize)
    target = titles[case.target_title]
    own, every = path_scores(step, titles, target)
    totals = {tuple(title): sum(path_scores(step, titles, title)[0]) for title in titles}
    score = sum(own)
    ranked = [list(title) for title in sorted(totals, key=lambda title: -totals[title])]
    outside = [own[i] < every[i][width - 1] if len(every[i]) >= width else False for i in range(len(own))]
    cut, bar, _ = naive_trace(step, titles, target, width)
    beam = beam_search(step, titles, width)
    lists = [[title for title, _ in beam_search(step, titles, w)] for w in widths]
    return {
        "row": case.row,
        "user_id": case.user,
        "target": case.target_item,
        "warm": case.warm,
        "target_score": score,
        "steps": len(own),
        "branching": sum(len(valid) > 1 for valid in every),
        "violations": sum(outside),
        "first_violation": outside.index(True) + 1 if any(outside) else 0,
        "rank": float(sum(s > score for s in totals.values())),
        "rank_proven": True,
        "beam_rank": place([target], [title for title, _ in beam])[0],
        "cut_step": cut,
        "cut_gap": bar - sum(own[:cut]) if cut else math.nan,
        "cut_violates": bool(cut and outside[cut - 1]),
        "pool_rank": float(sum(s > score + 1e-4 for _, s in beam)),
        "width_ranks": [place([target], found)[0] for found in lists],
        "exact_rank": place([target], ranked[:width])[0],
        "exact_proven": True,
        "top": ranked[:width],
        "beam": [title for title, _ in beam],
    }


@pytest.mark.parametrize("normalize", ["trie", "full"])
@pytest.mark.parametrize(("seed", "size", "width"), [(1, 1, 2), (2, 30, 3), (3, 60, 2), (4, 60, 10)])
def test_every_column(normalize, seed, size, width):
    titles, model, widths = random_catalogue(seed, size), MODELS[seed % 3], (width + 2, 1)
    cases = make_cases(seed, titles, [5, 30, 12, 9, 7])
    frame = measure(
        model, cases, TokenTrie.from_sequences(titles),
        DecodingConfig(beam_width=width, normalize=normalize, batch_size=4),
        widths=widths, node_budget=None, pad_token_id=PAD, device="cpu",
    )  # fmt: skip
    assert tuple(frame.columns) == COLUMNS
    assert len(frame) == len(cases)
    rows = [naive_row(model, case, titles, width, widths, normalize) for case in cases]
    for row, (_, found) in zip(rows, frame.iterrows(), strict=True):
        for name in set(COLUMNS) & set(row) - {"cut_gap", "target_score", "width_ranks"}:
            assert found[name] == row[name], name
        assert found["target_score"] == pytest.approx(row["target_score"], rel=1e-4, abs=1e-4)
        assert found["cut_gap"] == pytest.approx(row["cut_gap"], rel=1e-3, abs=1e-3, nan_ok=True)
        assert list(found["width_ranks"]) == row["width_ranks"]
        if found["beam_proven"]:
            assert row["beam"] == row["top"]
        assert len(found["expanded"]) == len(found["seconds"]) == len(widths) + 2
        assert min(found["expanded"]) >= 1 and min(found["seconds"]) > 0
        # What the numbers mean together: a kept target was not cut, a missed one of the top B was.
        if math.isfinite(found["beam_rank"]):
            assert found["cut_step"] == 0
        elif found["rank"] < width:
            assert found["cut_step"] > 0
    types = {name: frame[name].dtype.kind for name in COLUMNS}
    for name in ("rank", "beam_rank", "exact_rank", "pool_rank", "cut_gap", "target_score"):
        assert types[name] == "f"
    for name in ("warm", "rank_proven", "beam_proven", "exact_proven", "cut_violates"):
        assert types[name] == "b"
    for name in ("steps", "branching", "violations", "first_violation", "cut_step", "row", "user_id"):
        assert types[name] == "i"


def test_the_cases_above_are_not_all_alike():
    titles = random_catalogue(3, 150)
    frame = measure(
        MODELS[0], make_cases(3, titles, [5, 30, 12, 9, 20, 7] * 8), TokenTrie.from_sequences(titles),
        DecodingConfig(beam_width=4), widths=(), node_budget=None, pad_token_id=PAD, device="cpu",
    )  # fmt: skip
    assert frame["beam_rank"].map(math.isfinite).nunique() == 2
    assert frame["beam_proven"].nunique() == 2
    assert frame["cut_violates"].nunique() == 2
    assert frame["cut_step"].nunique() > 2
    assert (frame["width_ranks"].map(len) == 0).all()


def test_a_budget_leaves_ranks_unproven_and_never_too_high():
    titles = random_catalogue(3, 150)
    cases = make_cases(9, titles, [5, 30, 12, 9, 20, 7])
    options = {"widths": (5,), "pad_token_id": PAD, "device": "cpu"}
    arguments = (MODELS[0], cases, TokenTrie.from_sequences(titles), DecodingConfig(beam_width=4))
    true = measure(*arguments, node_budget=None, **options)
    some = measure(*arguments, node_budget=3, **options)
    assert true["rank_proven"].all() and not some["rank_proven"].all()
    assert (some["rank"] <= true["rank"]).all()
    assert (some["rank"] == true["rank"])[some["rank_proven"]].all()
    assert (some["exact_rank"] == true["exact_rank"])[some["exact_proven"]].all()
    assert (np.array(some["expanded"].tolist())[:, -1] <= 3).all()
    for name in ("beam_rank", "cut_step", "pool_rank", "violations"):  # these do not search the catalogue
        assert (some[name] == true[name]).all()


def test_bfloat16_keeps_the_meaning_of_the_columns():
    """Scores of different passes differ by rounding there; what happened in the search does not."""
    titles = random_catalogue(3, 150)
    frame = measure(
        tiny_model(20).bfloat16(), make_cases(5, titles, [5, 30, 12, 9, 20, 7] * 6),
        TokenTrie.from_sequences(titles), DecodingConfig(beam_width=4), widths=(8,), node_budget=None,
        pad_token_id=PAD, device="cpu",
    )  # fmt: skip
    kept = np.isfinite(frame["beam_rank"])
    assert kept.nunique() == 2
    assert (frame["cut_step"][kept] == 0).all()
    assert (frame["pool_rank"][kept] <= frame["beam_rank"][kept]).all()
    assert (frame["cut_gap"].dropna() >= 0).all()


def test_no_cases_make_an_empty_frame():
    trie = TokenTrie.from_sequences([[5], [6]])
    frame = measure(MODELS[0], [], trie, DecodingConfig(), node_budget=None, pad_token_id=PAD, device="cpu")
    assert tuple(frame.columns) == COLUMNS and len(frame) == 0


@pytest.mark.parametrize(
    ("decoding", "settings", "message"),
    [
        (DecodingConfig(length_penalty=1.0), {}, "decoding.length_penalty is 1.0"),
        (DecodingConfig(), {"widths": (20, 0)}, "widths is 0"),
        (DecodingConfig(), {"node_budget": 0}, "node_budget is 0"),
    ],
)
def test_bad_settings_are_named(decoding, settings, message):
    trie = TokenTrie.from_sequences([[5], [6]])
    options = {"node_budget": None, "pad_token_id": PAD, "device": "cpu", **settings}
    with pytest.raises(ConfigError, match=message):
        measure(MODELS[0], make_cases(0, [[5], [6]], [4]), trie, decoding, **options)
