"""Files cut off on disk, as a machine's crash or a full disk leaves them: noticed, named, made again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bearray.config import RunConfig
from bearray.evaluation import evaluate_run
from bearray.runs import Storage
from bearray.training.events import EVENTS
from bearray.training.trainer import Trained, train
from tests.faults.helpers import (
    Undisturbed,
    assert_predicted_as_undisturbed,
    assert_trained_as_undisturbed,
    compare,
)

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


def checkpoints(folder: Storage) -> list[Path]:
    """Oldest first."""
    return sorted(p for p in (Path(folder.root) / "checkpoints").glob("checkpoint_*") if p.is_dir())


def speeds(folder: Storage) -> dict[int, float]:
    """Of each step; one that is made again has another."""
    return {r["step"]: r["tokens_per_s"] for r in folder.read_lines("metrics.jsonl") if r["kind"] == "step"}


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_newest_checkpoint_and_a_shard_that_were_cut_off(
    local_ray: None,
    fault_run: Callable[..., RunConfig],
    undisturbed: Callable[[RunConfig], Undisturbed],
    tmp_path: Path,
) -> None:
    config, folder = fault_run({"train.num_workers": 1}), Storage(str(tmp_path / "run"))
    expected = undisturbed(config)
    assert expected.best_epoch < config.train.epochs  # so that there is another checkpoint to fall back to

    def assert_right(trained: Trained) -> None:
        assert_trained_as_undisturbed(folder, expected)
        assert trained.best_epoch == expected.best_epoch
        best = {name: value for name, value in expected.best_valid.items() if "@" in name}
        compare({f"valid_{name}": value for name, value in trained.valid.items()}, best)

    assert_right(train(config, folder))
    assert not folder.exists(EVENTS)
    best, newest = checkpoints(folder)

    speed = speeds(folder)
    cut_off(newest / "optimizer.safetensors")
    trained = train(config, folder)
    assert_right(trained)
    (event,) = folder.read_lines(EVENTS)
    assert f"checkpoints/{newest.name} is damaged (optimizer.safetensors has " in event["event"]
    assert f"continues after epoch {expected.best_epoch}, from checkpoints/{best.name}" in event["event"]
    assert not newest.exists() and best in checkpoints(folder)
    again = speeds(folder)
    kept = [step for step in speed if again[step] == speed[step]]
    assert kept == list(range(3 * expected.best_epoch))

    measured = evaluate_run(config, trained.checkpoint, folder)
    shards = {f: f.stat().st_mtime_ns for f in Path(folder.root).glob("predictions*/part-*.parquet")}
    damaged = Path(folder.root) / "predictions" / "part-00001.parquet"
    cut_off(damaged)
    for result in (measured, evaluate_run(config, trained.checkpoint, folder)):
        compare(result["test"], expected.test)
    assert {f for f, told in shards.items() if f.stat().st_mtime_ns != told} == {damaged}
    assert_predicted_as_undisturbed(folder.child("predictions"), expected)
