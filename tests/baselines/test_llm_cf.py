"""LLM-CF: its loss against a naive one, examples that do not tell what is to be predicted, a pattern."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bearray.baselines import BaselineData, LLMParts, fit, number_titles, view
from bearray.baselines.data import PAD, TitleWindows, UnseenTitles
from bearray.baselines.llm_cf import LLMCF, choose_examples
from bearray.baselines.parts import mean_over_history, read_parts, text_directions, write_parts
from bearray.baselines.train import validate
from bearray.config import LLMCFConfig, override
from bearray.data import Dataset
from bearray.errors import DataError
from tests.baselines.naive import check_same, encode

TITLES, WIDTH = 9, 5


def small_data() -> BaselineData:
    """Twelve windows of three users."""
    rng = np.random.default_rng(0)
    titles = torch.from_numpy(rng.integers(0, TITLES - 2, (12, 6)))
    titles[3:6, :2] = PAD
    windows = TitleWindows(titles=titles, users=np.array([1, 2, 3] * 4))
    return BaselineData(
        train=windows, valid=windows, test=windows, num_titles=TITLES, unseen=UnseenTitles(windows, TITLES)
    )


def parts_of(data: BaselineData, width: int = WIDTH, count: int = 8) -> LLMParts:
    rows, titles, liked = choose_examples(data, count, 0)
    generator = torch.Generator().manual_seed(0)
    return LLMParts(
        key="k",
        title_vectors=torch.randn(data.num_titles, width, generator=generator) + 3,
        example_rows=torch.from_numpy(rows),
        example_titles=torch.from_numpy(titles),
        example_labels=torch.from_numpy(liked),
        example_vectors=torch.randn(len(rows), width, generator=generator),
    )


def make(**changes: Any) -> LLMCF:
    config = override(
        LLMCFConfig(), {"hidden": 8, "max_history": 5, "dropout": 0.0, "negatives": 4, **changes}
    )
    data = small_data()
    return LLMCF(data, parts_of(data), config).double()


def naive_user(model: LLMCF, history: list[int], row: int | None, user: int | None) -> tuple[Tensor, Tensor]:
    """One user's vector and missed share of the chains, example by example."""
    last = {True: [], False: []}  # type: dict[bool, list[tuple[float, int]]]
    mean = model.directions[[t for t in history if t != PAD]].mean(0)
    for number in range(len(model.rows)):
        own = row is not None and int(model.users[number]) == user
        if own and int(model.rows[number]) >= int(row or 0):
            continue
        likeness = float(mean @ model.means[number])
        last[bool(model.liked[number])].append((likeness, number))
    shown = sorted(sorted(last[True])[-2:] + sorted(last[False])[-2:])

    def state(titles: list[int]) -> Tensor:
        return model.hidden(torch.tensor([[t for t in titles if t != PAD]]))[0, -1]

    def linear(layer: Any, x: Tensor) -> Tensor:
        return layer.weight @ x + layer.bias

    places: list[Tensor] = []
    for _, number in shown:
        title = int(model.titles[number])
        known = [
            state(model.histories[number].tolist()),
            linear(model.from_text, model.means[number]),
            model.items[title] * model.items.shape[1] ** 0.5,
            linear(model.from_text, model.directions[title]),
        ]
        places += [
            linear(model.features, torch.cat(known)),
            linear(model.from_text, model.chains[number]),
            model.labels[int(model.liked[number])],
        ]
    own_state, nothing = state(history), torch.zeros(8).double()
    query = torch.cat([own_state, linear(model.from_text, mean), nothing, nothing])
    states = encode(model.decoder, [*places, linear(model.features, query)])
    missed = [
        1 - torch.cosine_similarity(linear(model.to_chain, states[3 * i]), model.chains[number], dim=0)
        for i, (_, number) in enumerate(shown)
    ]
    return own_state + 0.1 * states[-1], torch.stack(missed).mean()


def test_the_loss_and_its_gradients_equal_a_naive_reference() -> None:
    model = make(reconstruction=0.3)
    data = small_data()
    rows = np.array([11, 4, 9, 7])
    titles = data.train.titles[rows]
    shared = np.random.default_rng(3).choice(TITLES, size=4, replace=False).tolist()
    terms = []
    for row, window in zip(rows.tolist(), titles.tolist(), strict=True):
        user, missed = naive_user(model, window[:-1], row, int(data.train.users[row]))
        others = [t for t in shared if t != window[-1]]
        scores = torch.stack([model.items[t] @ user for t in [window[-1], *others]])
        terms += [-torch.log_softmax(scores, 0)[0], 0.3 * missed]
    users = data.train.users[rows]
    batch = SimpleNamespace(titles=titles, rows=rows, users=users, rng=np.random.default_rng(3))
    check_same(model, model.loss(batch), terms, 4)  # type: ignore[arg-type]


def test_when_asked_all_examples_may_be_shown() -> None:
    model = make().eval()
    history = [PAD, PAD, 4, 1, 3]
    expected = model.items @ naive_user(model, history, None, None)[0]
    torch.testing.assert_close(model(torch.tensor([history]))[0], expected, rtol=1e-9, atol=1e-9)


def test_no_example_is_of_the_window_itself_or_of_its_users_later_ones() -> None:
    model, data = make(), small_data()
    rows = torch.arange(12)
    users = torch.from_numpy(data.train.users)
    mean = mean_over_history(model.directions, data.train.histories)
    shown, there = model.examples(mean, rows, users)
    assert shown.shape == (12, 4)
    for row in range(12):
        for number, real in zip(shown[row].tolist(), there[row].tolist(), strict=True):
            if real and model.users[number] == users[row]:
                assert model.rows[number] < row
    free, _ = model.examples(mean, None, None)
    assert any((model.rows[free[row]] == row).any() for row in range(12))  # else this test could not fail
    for row in range(12):
        labels = model.liked[shown[row][there[row]]].tolist()
        assert labels.count(True) <= 2 and labels.count(False) <= 2


def test_the_target_is_not_looked_at() -> None:
    """The user's vector of a training window is the same whatever its target is."""
    model, data = make(), small_data()
    seen: list[Tensor] = []
    original = model.user
    model.user = lambda *a: seen.append(original(*a)[0]) or original(*a)  # type: ignore[method-assign,func-returns-value]
    for target in (0, 5):
        titles = data.train.titles[[9]].clone()
        titles[0, -1] = target
        batch = SimpleNamespace(
            titles=titles, rows=np.array([9]), users=data.train.users[[9]], rng=np.random.default_rng(0)
        )
        model.loss(batch)  # type: ignore[arg-type]
    assert torch.equal(seen[0], seen[1])


def test_examples_are_half_liked_and_of_titles_that_the_user_knows_or_not() -> None:
    data = small_data()
    rows, titles, liked = choose_examples(data, 10, 0)
    assert len(set(rows.tolist())) == 10 and sorted(rows.tolist()) == rows.tolist() and liked.sum() == 5
    assert (titles == data.train.targets.numpy()[rows])[liked].all()
    for row, title in zip(rows[~liked], titles[~liked], strict=True):
        own = data.train.titles[torch.from_numpy(data.train.users == data.train.users[row])]
        assert title not in own
    again = choose_examples(data, 10, 0)
    assert all((a == b).all() for a, b in zip(again, (rows, titles, liked), strict=True))
    assert len(choose_examples(data, 99, 0)[0]) == 12


def test_directions_are_centred_and_of_length_one() -> None:
    found = text_directions(torch.tensor([[10.0, 1.0], [10.0, -1.0], [10.0, 3.0], [10.0, -3.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.0], [0.0, -1.0], [0.0, 1.0], [0.0, -1.0]]))


def test_parts_are_kept_and_what_does_not_fit_is_refused(tmp_path: Any, circle: Dataset) -> None:
    parts = parts_of(small_data())
    write_parts(tmp_path / "parts", parts)
    again = read_parts(tmp_path / "parts", "k")
    assert again.key == "k" and again.teacher_titles is None
    assert again.example_labels is not None and again.example_labels.dtype == torch.bool
    torch.testing.assert_close(again.title_vectors, parts.title_vectors)
    data = view(circle, number_titles(circle.items), max_history=5)
    with pytest.raises(DataError, match="vectors are of 9 titles, the data has 40"):
        LLMCF(data, parts, LLMCFConfig(max_history=5))
    with pytest.raises(DataError, match="llm-cf needs example_rows"):
        LLMCF(small_data(), LLMParts(key="", title_vectors=parts.title_vectors), LLMCFConfig(max_history=5))


def test_it_learns_a_planted_pattern(circle: Dataset) -> None:
    config = override(
        LLMCFConfig(),
        {
            "hidden": 32,
            "layers": 1,
            "context_layers": 1,
            "max_history": 6,
            "dropout": 0.0,
            "train.epochs": 30,
            "train.batch_size": 32,
            "train.lr": 5e-3,
        },
    )
    data = view(circle, number_titles(circle.items), max_history=6)
    model = LLMCF(data, parts_of(data, 8, 60), config)
    assert validate(model, data.test, data.num_titles)["hr@1"] < 0.2
    fit(model, data, config.train)
    assert validate(model, data.test, data.num_titles)["hr@1"] > 0.97
