"""What tests of faults share: the run that nothing happens to, what to compare with it, and what to count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ray.util.state import list_actors

from bearray.config import Normalize, RunConfig, override, to_dict
from bearray.evaluation.evaluate import ShardDecoder
from bearray.evaluation.predictions import read_predictions
from bearray.metrics import evaluate
from bearray.runs import Storage
from bearray.training.trainer import Trained
from tests.training.workers import Job, Outcome, run_job

TOLERANCE = 1e-6
"""By how much a metric may differ after a fault."""

FAULT_RUN: dict[str, Any] = {
    "train.epochs": 3,
    "train.lr": 0.03,
    "train.num_workers": 2,
    "train.cpus_per_worker": 0.9,
    "train.micro_batch_size": 4,
}
"""Changes to the smallest run: three epochs of three steps each, validated after each, on two workers."""


@dataclass(frozen=True)
class Undisturbed:
    """What a run comes to when nothing happens to it; computed without Ray."""

    outcome: Outcome
    best_epoch: int
    checkpoint: str
    """Folder of the best epoch's checkpoint."""
    test: dict[Normalize, dict[str, Any]]
    """As the `test` entry of result.json, of each normaliser."""
    predictions: dict[Normalize, pd.DataFrame]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, but for those of epochs."""
        return self.outcome.rows

    @property
    def best_valid(self) -> dict[str, float]:
        return self.outcome.valid[self.best_epoch - 1]


def undisturbed_run(config: RunConfig, folder: Path) -> Undisturbed:
    """Train in this process, which comes to the same as several workers, and decode the best epoch's test."""
    job = Job("undisturbed", epochs=config.train.epochs, save=True, validate=True)
    alone = override(config, {"train.num_workers": 1, "train.engine": "ddp"})
    outcome = run_job(alone, job, folder)
    scores = [valid["valid_ndcg@10"] for valid in outcome.valid]
    best = max(range(1, len(scores) + 1), key=lambda epoch: (scores[epoch - 1], epoch))
    decoder = ShardDecoder(to_dict(config), str(folder / job.name / str(best)), "test")
    cases = decoder.task.cases("test")
    names: tuple[Normalize, ...] = ("trie", "full")
    predictions = {name: decoder.table(cases, {"decoded": name}).to_pandas() for name in names}
    test = {name: evaluate(frame, config.evaluation.ks) for name, frame in predictions.items()}
    return Undisturbed(outcome, best, str(folder / job.name / str(best)), test, predictions)


def compare(ours: Any, theirs: Any, where: str = "metrics") -> None:
    """Two nested results are the same: the same entries, numbers within `TOLERANCE`, all else equal."""
    if isinstance(theirs, Mapping):
        assert set(ours) == set(theirs), f"{where}: {sorted(ours)} instead of {sorted(theirs)}"
        for name in theirs:
            compare(ours[name], theirs[name], f"{where}.{name}")
    elif isinstance(theirs, float) or (isinstance(ours, float) and isinstance(theirs, int)):
        assert ours == pytest.approx(theirs, rel=0, abs=TOLERANCE, nan_ok=True), where
    else:
        assert ours == theirs, where


def assert_trained_as_undisturbed(folder: Storage, undisturbed: Undisturbed) -> None:
    """metrics.jsonl has every step and every epoch once, in order, with the undisturbed run's numbers."""
    rows = folder.read_lines("metrics.jsonl")
    steps, epochs = ([r for r in rows if r["kind"] == kind] for kind in ("step", "epoch"))
    assert [r["step"] for r in steps] == [r["step"] for r in undisturbed.steps]
    for ours, theirs in zip(steps, undisturbed.steps, strict=True):
        names = theirs.keys() - {"tokens_per_s"}
        compare({n: ours[n] for n in names}, {n: theirs[n] for n in names}, f"step {ours['step']}")
    assert [r["epoch"] for r in epochs] == list(range(1, len(undisturbed.outcome.valid) + 1))
    for row, valid in zip(epochs, undisturbed.outcome.valid, strict=True):
        compare({n: row[n] for n in valid}, valid, f"epoch {row['epoch']}")


def assert_came_to_the_same(folder: Storage, trained: Trained, undisturbed: Undisturbed) -> None:
    """What `train` has left and returned is what it would have been without the fault."""
    assert_trained_as_undisturbed(folder, undisturbed)
    assert trained.best_epoch == undisturbed.best_epoch
    best = {name.removeprefix("valid_"): v for name, v in undisturbed.best_valid.items() if "@" in name}
    compare(trained.valid, best, "validation")


def assert_predicted_as_undisturbed(
    folder: Storage, undisturbed: Undisturbed, normalize: Normalize = "trie"
) -> None:
    """The predictions of a folder: each test case once, with the undisturbed run's items and scores."""
    ours, theirs = read_predictions(folder), undisturbed.predictions[normalize]
    assert ours["row"].tolist() == theirs["row"].tolist()  # in order, so none is missing or doubled
    for name in ("user_id", "target", "rank", "warm"):
        assert ours[name].tolist() == theirs[name].tolist(), name
    for row, ours_row, theirs_row in zip(ours["row"], ours["items"], theirs["items"], strict=True):
        assert list(ours_row) == list(theirs_row), row
    for row, ours_row, theirs_row in zip(ours["row"], ours["scores"], theirs["scores"], strict=True):
        assert list(ours_row) == pytest.approx(list(theirs_row), rel=0, abs=1e-4), row


def train_worker_pids() -> set[int]:
    """Process ids of the training workers that live now, as Ray knows them."""
    filters = [("class_name", "=", "RayTrainWorker"), ("state", "=", "ALIVE")]
    return {int(actor.pid) for actor in list_actors(filters=filters, limit=1000, detail=True)}
