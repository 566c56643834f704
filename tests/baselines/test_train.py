"""The shared loop: stops where it should, keeps the best epoch, continues as if nothing had happened."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bearray.baselines import BaselineData, SASRec, number_titles, view
from bearray.baselines import train as loop
from bearray.baselines.train import Fit, History, fit
from bearray.config import BaselineTrainConfig, SASRecConfig
from bearray.data import Dataset
from bearray.errors import ConfigError, ResumeError


@pytest.fixture(scope="module")
def data(circle: Dataset, small: SASRecConfig) -> BaselineData:
    return view(circle, number_titles(circle.items), max_history=small.max_history)


def scripted(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Validation gives these NDCG@10, one after the other."""
    left = iter(values)
    names = [c.removeprefix("valid_") for c in loop._COLUMNS if c.startswith("valid_") and "@" in c]

    def validate(*_: Any) -> dict[str, float]:
        return dict.fromkeys(names, 0.0) | {"ndcg@10": next(left)}

    monkeypatch.setattr(loop, "validate", validate)


@pytest.mark.parametrize(
    ("values", "patience", "epochs", "best"),
    [
        ([0.1, 0.3, 0.2, 0.2, 0.4], 2, 4, 2),  # stops before the fifth
        ([0.1, 0.3, 0.2, 0.2, 0.4], 3, 5, 5),
        ([0.1, 0.3, 0.3, 0.2, 0.4], 2, 4, 2),  # an equal one is no improvement
        ([0.1, 0.3, 0.2, 0.2, 0.1], None, 5, 2),
        ([0.0, 0.0, 0.0, 0.0, 0.0], 1, 2, 1),
    ],
)
def test_it_stops_and_keeps_the_weights_of_the_best_epoch(
    monkeypatch: pytest.MonkeyPatch,
    data: BaselineData,
    small: SASRecConfig,
    values: list[float],
    patience: int | None,
    epochs: int,
    best: int,
) -> None:
    scripted(monkeypatch, values)
    model = SASRec(data.num_titles, small)
    after: list[torch.Tensor] = []
    config = replace(small.train, epochs=5, patience=patience)
    result = fit(model, data, config, on_epoch=lambda _: after.append(model.items.detach().clone()))
    assert len(result.history) == epochs and result.best_epoch == best
    assert result.valid["ndcg@10"] == values[best - 1]
    assert torch.equal(model.items, after[best - 1])
    assert not any(torch.equal(model.items, w) for i, w in enumerate(after, 1) if i != best)


class InterruptedError_(Exception):
    pass


def train(
    data: BaselineData,
    small: SASRecConfig,
    folder: Path | None,
    stop_after: int | None = None,
    **changes: Any,
) -> tuple[SASRec, Fit]:
    def stop(history: History) -> None:
        if len(history) == stop_after:
            raise InterruptedError_

    model = SASRec(data.num_titles, small)
    config = replace(small.train, patience=None, **changes)
    return model, fit(model, data, config, folder=folder, settings={"data": "circle"}, on_epoch=stop)


def learned(history: History) -> History:
    return [{name: v for name, v in row.items() if "seconds" not in name} for row in history]


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_resumed_training_equals_an_uninterrupted_one(
    tmp_path: Path, data: BaselineData, small: SASRecConfig, stop_after: int
) -> None:
    whole, expected = train(data, small, None)
    with pytest.raises(InterruptedError_):
        train(data, small, tmp_path, stop_after)
    torch.manual_seed(12345)  # as in another process
    resumed, result = train(data, small, tmp_path)
    assert learned(result.history) == learned(expected.history)
    assert result.best_epoch == expected.best_epoch
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_the_best_epoch_survives_an_interruption_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: BaselineData, small: SASRecConfig
) -> None:
    values = [0.1, 0.5, 0.2, 0.3]
    scripted(monkeypatch, values)
    whole, _ = train(data, small, None)
    scripted(monkeypatch, values)
    with pytest.raises(InterruptedError_):
        train(data, small, tmp_path, 3)
    scripted(monkeypatch, values[3:])
    resumed, result = train(data, small, tmp_path)
    assert result.best_epoch == 2 and torch.equal(resumed.items, whole.items)


def test_a_finished_training_is_not_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: BaselineData, small: SASRecConfig
) -> None:
    whole, expected = train(data, small, tmp_path)

    def never(*_: Any) -> float:
        raise AssertionError("trained again")

    monkeypatch.setattr(loop, "_train_epoch", never)
    again, result = train(data, small, tmp_path)
    assert result == expected and torch.equal(again.items, whole.items)


def test_a_folder_with_other_settings_is_refused(
    tmp_path: Path, data: BaselineData, small: SASRecConfig
) -> None:
    train(data, small, tmp_path, epochs=1)
    with pytest.raises(ResumeError, match=r"train\.lr: 0\.01 -> 0\.02"):
        train(data, small, tmp_path, epochs=1, lr=0.02)


@pytest.mark.parametrize("name", ["training.safetensors", "training.json"])
def test_a_damaged_state_is_named(tmp_path: Path, data: BaselineData, small: SASRecConfig, name: str) -> None:
    train(data, small, tmp_path, epochs=1)
    (tmp_path / name).write_bytes(b"{broken")
    with pytest.raises(ResumeError, match=name):
        train(data, small, tmp_path, epochs=1)


def test_seeds_and_nothing_else_decide(data: BaselineData, small: SASRecConfig) -> None:
    torch.manual_seed(1)
    one, _ = train(data, small, None, epochs=1)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    same, _ = train(data, small, None, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)
    other, _ = train(data, small, None, epochs=1, seed=3)
    assert torch.equal(one.items, same.items) and not torch.equal(one.items, other.items)


def test_a_diverging_loss_is_an_error_that_names_the_learning_rate(
    data: BaselineData, small: SASRecConfig
) -> None:
    with pytest.raises(ConfigError, match=r"lower train\.lr"):
        train(data, small, None, lr=1e30)


def test_threads_are_as_before(data: BaselineData, small: SASRecConfig) -> None:
    torch.set_num_threads(2)
    try:
        train(data, small, None, epochs=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_the_loss_of_an_epoch_is_the_mean_over_its_places(
    monkeypatch: pytest.MonkeyPatch, data: BaselineData, small: SASRecConfig
) -> None:
    """300 windows in batches of 64 leave a smaller last batch, which must not count as much as the others."""
    model = SASRec(data.num_titles, small)
    batches = []
    loss = model.loss

    def record(batch: Any) -> Any:
        batches.append(tuple(x.detach() for x in loss(batch)))
        return loss(batch)

    monkeypatch.setattr(model, "loss", record)
    result = fit(model, data, BaselineTrainConfig(epochs=1, batch_size=64, lr=1e-12))
    places = sum(int(count) for _, count in batches)
    assert len(batches) == 5 and places == int((data.train.histories >= 0).sum())
    assert result.history[0]["loss"] == pytest.approx(
        sum(float(total) for total, _ in batches) / places, rel=0.05
    )  # the recorded ones drew other negatives
    json.dumps(result.history, allow_nan=False)
