"""Files cut off on disk, as a machine's crash or a full disk leaves them: noticed, named, made again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bearray.config import RunConfig
from bearray.evaluation import evaluate_run
from bearray.runs import Storage
from bearray.training.trainer import Trained, train
from tests.faults.harm import when_stuck
from tests.faults.helpers import (
    Undisturbed,
    assert_predicted_as_undisturbed,
    assert_trained_as_undisturbed,
    compare,
)
from tests.faults.planted import Fault, begun, plant

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


def checkpoints(folder: Storage) -> list[Path]:
    """Oldest first."""
    return sorted(p for p in (Path(folder.root) / "checkpoints").glob("checkpoint_*") if p.is_dir())


def speeds(folder: Storage) -> dict[int, float]:
    """Of each step; one that is made again has another."""
    return {r["step"]: r["tokens_per_s"] for r in folder.read_lines("metrics.jsonl") if r["kind"] == "step"}


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_newest_checkpoints_and_a_shard_that_were_cut_off(
    local_ray: None,
    fault_run: Callable[..., RunConfig],
    undisturbed: Callable[[RunConfig], Undisturbed],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """While the run is under way, and after it; each time the newest checkpoint is the best one, too."""
    config = fault_run({"train.num_workers": 1, "train.seed": 4})
    folder, expected = Storage(str(tmp_path / "run")), undisturbed(config)
    scores = [valid["valid_ndcg@10"] for valid in expected.outcome.valid]
    assert scores == sorted(set(scores)) and len(scores) == 3
    fault = Fault(str(tmp_path / "journal"), step=7)  # the second step of the third epoch
    plant(monkeypatch, fault)

    def assert_right(trained: Trained) -> None:
        assert_trained_as_undisturbed(folder, expected)
        assert trained.best_epoch == expected.best_epoch == 3
        best = {name: value for name, value in expected.best_valid.items() if "@" in name}
        compare({f"valid_{name}": value for name, value in trained.valid.items()}, best)

    def harm(line: dict[str, Any]) -> None:
        cut_off(checkpoints(folder)[-1] / "state.json")
        os.kill(line["pid"], signal.SIGKILL)

    with when_stuck(fault, harm):
        trained = train(config, folder)
    assert_right(trained)
    times = begun(fault)  # the epoch of the damaged checkpoint once more, and what was interrupted
    assert [times[0, step] for step in range(9)] == [1, 1, 1, 2, 2, 2, 2, 2, 1]
    lost, damaged_then = trained.events
    assert lost.startswith("rank 0 lost") and "state.json is not valid JSON" in damaged_then
    first, before, newest = checkpoints(folder)
    assert f"the run continues after epoch 1, from checkpoints/{first.name}" in damaged_then

    speed = speeds(folder)
    cut_off(newest / "optimizer.safetensors")
    trained = train(config, folder)
    assert_right(trained)
    event = trained.events[-1]
    assert f"checkpoints/{newest.name} is damaged (optimizer.safetensors has " in event
    assert f"continues after epoch 2, from checkpoints/{before.name}" in event
    assert not newest.exists() and before in checkpoints(folder)
    again = speeds(folder)
    assert [step for step in speed if again[step] == speed[step]] == list(range(6))

    measured = evaluate_run(config, trained.checkpoint, folder)
    shards = {f: f.stat().st_mtime_ns for f in Path(folder.root).glob("predictions*/part-*.parquet")}
    damaged = Path(folder.root) / "predictions" / "part-00001.parquet"
    cut_off(damaged)
    for result in (measured, evaluate_run(config, trained.checkpoint, folder)):
        compare(result["test"], expected.test)
    assert {f for f, told in shards.items() if f.stat().st_mtime_ns != told} == {damaged}
    assert_predicted_as_undisturbed(folder.child("predictions"), expected)
