"""From windows to titles with every decoder that a run can choose."""

from __future__ import annotations

from collections import Counter
from typing import Any, get_args

import numpy as np
import pytest
import torch

from bearray.baselines.sasrec import load_or_train_sasrec
from bearray.batching import left_pad
from bearray.config import BaselineTrainConfig, DecodingConfig, DecodingMethod, SASRecConfig
from bearray.decoding import (
    constrained_beam_search,
    d3_beam_search,
    diverse_beam_search,
    embed_titles,
    exact_top_k,
    greedy_search,
    grounded_beam_search,
    list_decoders,
)
from bearray.recommend import DecoderInputs, recommend, target_ranks
from tests.adapters import stir

METHODS = get_args(DecodingMethod)
WIDTH = 6


@pytest.fixture(scope="module")
def inputs(micro_task) -> DecoderInputs:
    return DecoderInputs(micro_task, "cpu")


@pytest.fixture(scope="module")
def model(make_run, micro_task):
    """The micro base model with an adapter that changes its answers."""
    from bearray.backbones.load import load_model
    from bearray.backbones.lora import add_lora

    config = make_run()
    base = load_model(config.model.base, dtype="float32", device="cpu")
    return stir(add_lora(base, config.model, seed=0))


@pytest.fixture(scope="module")
def cases(micro_task) -> list[Any]:
    return micro_task.cases("test", range(7))


def config(method: str, **changes: Any) -> DecodingConfig:
    width = {"beam_width": WIDTH, "diverse_groups": 3, "batch_size": 4}
    return DecodingConfig(**{**width, "method": method, **changes})


def naive_counts(task) -> list[int]:
    """Interactions of each title in training: windows of a user overlap in all but their last item."""
    counts: Counter[int] = Counter()
    for _, windows in task.dataset.train.groupby("user_id"):
        ordered = windows.sort_values("timestamp", kind="stable")["item_ids"].to_list()
        for items in [list(ordered[0]), *([w[-1]] for w in ordered[1:])]:
            counts.update(task.catalog.title_of_item[int(i)] for i in items)
    return [counts[t] for t in range(len(task.catalog))]


def direct(method: str, model, task, cases):
    """What the decoder itself returns."""
    asked = (model, *left_pad([c.prompt for c in cases], task.pad_token_id), task.catalog.trie)
    counts = torch.tensor(naive_counts(task)).float()
    if method == "exact":
        return exact_top_k(*asked, k=WIDTH, normalize="full", node_budget=5)
    if method == "d3":
        scores = (counts + 1).log()[None].expand(len(cases), -1)
        return d3_beam_search(*asked, scores, alpha=0.4, beam_width=WIDTH, length_penalty=0.5)
    if method == "diverse":
        return diverse_beam_search(*asked, beam_width=WIDTH, groups=2, penalty=3.0, normalize="full")
    if method == "greedy":
        return greedy_search(*asked, normalize="full")
    if method == "grounding":
        return grounded_beam_search(
            *asked, embeddings=embed_titles(model, task.catalog.trie, prefix=task.backbone.bos_tokens),
            beam_width=WIDTH, generation_beams=2, length_penalty=1.0, side_scores=counts, gamma=0.5,
        )  # fmt: skip
    return constrained_beam_search(*asked, beam_width=WIDTH, normalize="full", length_penalty=1.0)


OPTIONS: dict[str, dict[str, Any]] = {
    "beam": {"length_penalty": 1.0},
    "exact": {"exact_node_budget": 5},
    "d3": {"d3_alpha": 0.4, "length_penalty": 0.5},
    "diverse": {"diverse_groups": 2, "diverse_penalty": 3.0},
    "greedy": {},
    "grounding": {"grounding_beams": 2, "grounding_gamma": 0.5, "length_penalty": 1.0},
}


def test_the_methods_are_the_decoders():
    assert sorted(METHODS) == [info["name"] for info in list_decoders()] == sorted(OPTIONS)


@pytest.mark.parametrize("method", METHODS)
def test_settings_reach_the_decoder(method, model, micro_task, cases, inputs):
    titles, scores = recommend(model, cases, config(method, normalize="full", **OPTIONS[method]), inputs)
    assert titles.shape == scores.shape == (7, WIDTH)
    assert (titles.dtype, scores.dtype) == (np.int64, np.float32)
    expected = direct(method, model, micro_task, cases)
    width = expected.scores.shape[1]
    np.testing.assert_array_equal(titles[:, :width], expected.title_ids.numpy())
    np.testing.assert_allclose(scores[:, :width], expected.scores.numpy(), rtol=1e-4, atol=1e-4)
    assert (titles[:, width:] == -1).all() and (scores[:, width:] == -np.inf).all()


@pytest.mark.parametrize("method", METHODS)
def test_titles_of_the_history_can_be_left_out(method, model, micro_task, cases, inputs):
    wide = {"beam_width": 30}
    with_history, _ = recommend(model, cases, config(method, **wide), inputs)
    without, scores = recommend(model, cases, config(method, exclude_history=True, **wide), inputs)
    read = [set(case.history_titles) for case in cases]
    if method != "greedy":  # one title can be new by chance
        assert any(set(row) & seen for row, seen in zip(with_history.tolist(), read, strict=True))
    for row, seen in zip(without.tolist(), read, strict=True):
        assert not set(row) & seen
        assert row[0] >= 0
    assert (np.diff(scores[:, :1], axis=1) <= 0).all()


def test_a_case_knows_its_history(micro_task, cases):
    windows, names = (
        micro_task.windows("test"),
        dict(zip(micro_task.dataset.items["item_id"], micro_task.dataset.items["title"], strict=True)),
    )
    for case in cases:
        items = windows["item_ids"][case.row]
        assert [micro_task.catalog.titles[t] for t in case.history_titles] == [names[i] for i in items[:-1]]


def test_inputs_are_made_once_and_only_when_asked_for(model, micro_task, cases, monkeypatch):
    import bearray.recommend

    made = []
    real = bearray.recommend.embed_titles
    monkeypatch.setattr(bearray.recommend, "embed_titles", lambda *a, **k: made.append(1) or real(*a, **k))
    fresh = DecoderInputs(micro_task, "cpu")
    recommend(model, cases, config("beam"), fresh)
    assert not made
    for _ in range(2):
        recommend(model, cases, config("grounding"), fresh)
    assert made == [1]
    assert fresh.popularity() is fresh.popularity()
    assert fresh.popularity().tolist() == naive_counts(micro_task)


def test_grounding_embeds_with_the_base_model_after_training_changed_the_adapter(model, micro_task, cases):
    """One `DecoderInputs` serves all epochs, so its vectors must not depend on the adapter."""
    fresh = DecoderInputs(micro_task, "cpu")
    first = fresh.title_embeddings(model).vectors.clone()
    weight = next(p for n, p in model.named_parameters() if "lora_B" in n)
    old = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.mul_(-2)
        again = DecoderInputs(micro_task, "cpu").title_embeddings(model).vectors
    finally:
        with torch.no_grad():
            weight.copy_(old)
    assert torch.equal(first, again)


def test_no_windows_are_an_empty_table(model, inputs):
    titles, scores = recommend(model, [], config("beam"), inputs)
    assert titles.shape == scores.shape == (0, WIDTH)


def test_ranks_of_targets(cases):
    titles = np.array([[c.target_title, -1] for c in cases])
    titles[1] = titles[1][::-1]
    titles[2] = -1
    assert target_ranks(cases[:4], titles[:4]).tolist() == [0.0, 1.0, np.inf, 0.0]


def test_d3_can_ask_sasrec(model, cases, inputs, micro_task, monkeypatch, tmp_path):
    """Trained once, on the task's own title ids, and asked about the windows' histories."""
    settings = SASRecConfig(hidden=8, train=BaselineTrainConfig(epochs=1))
    trained = []

    def train(dataset, title_of_item):
        trained.append(
            load_or_train_sasrec(dataset, title_of_item, settings, cache_dir=tmp_path, progress=False)
        )
        return trained[-1]

    monkeypatch.setattr("bearray.recommend.load_or_train_sasrec", train)
    asked = config("d3", d3_alpha=0.2, d3_scores="sasrec")
    fresh = DecoderInputs(micro_task, "cpu")
    titles, scores = recommend(model, cases, asked, fresh)
    assert len(trained) == 1
    again, _ = recommend(model, cases[:2], asked, fresh)
    assert len(trained) == 1 and (again == titles[:2]).all()
    ids, mask = left_pad([c.prompt for c in cases], micro_task.pad_token_id)
    text_free = trained[0].title_scores([c.history_titles for c in cases])
    assert text_free.shape == (len(cases), len(micro_task.catalog)) and text_free.std(0).max() > 0
    expected = d3_beam_search(
        model, ids, mask, inputs.trie, text_free, alpha=0.2, beam_width=WIDTH, normalize="trie"
    )
    np.testing.assert_allclose(scores, expected.scores.numpy(), rtol=1e-4, atol=1e-4)
