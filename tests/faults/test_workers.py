"""A training worker dies while it is started, and one is killed in the middle of an epoch: the run is started
again, and goes on from its last checkpoint."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.train.v2._internal.execution.callback import WorkerCallback

from bearray.config import RunConfig
from bearray.evaluation import evaluate_run
from bearray.runs import Storage
from bearray.training.trainer import train
from tests.faults.harm import when_stuck
from tests.faults.helpers import (
    Undisturbed,
    assert_came_to_the_same,
    assert_predicted_as_undisturbed,
    compare,
    train_worker_pids,
)
from tests.faults.planted import Fault, begun, plant

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


class DiesOnce(WorkerCallback):
    """Ends the first worker's process while it is started."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def after_init_train_context(self) -> None:
        try:
            os.close(os.open(self.mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os._exit(1)


def test_a_worker_that_dies_at_the_start_and_one_killed_in_the_middle_of_an_epoch(
    fault_run: Callable[..., RunConfig],
    undisturbed: Callable[[RunConfig], Undisturbed],
    local_ray: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    config, folder = fault_run({"train.engine": "deepspeed"}), Storage(str(tmp_path / "run"))
    expected = undisturbed(config)
    fault = Fault(str(tmp_path / "journal"), step=4, rank=1)  # the second step of the second epoch
    plant(monkeypatch, fault)

    def kill(line: dict[str, Any]) -> None:
        assert line["pid"] in train_worker_pids()
        os.kill(line["pid"], signal.SIGKILL)

    with when_stuck(fault, kill):
        trained = train(config, folder, [DiesOnce(tmp_path / "died")])

    assert_came_to_the_same(folder, trained, expected)
    times = begun(fault)  # the interrupted epoch's steps twice at most, all others once
    assert [times[0, step] for step in range(9)] == [1, 1, 1, 2, 2, 1, 1, 1, 1]
    start, lost = trained.events
    assert start.startswith("workers could not be started: its process has ended") and "rank 1 lost" in lost

    measured = evaluate_run(config, trained.checkpoint, folder)
    compare(measured["test"], expected.test)
    assert_predicted_as_undisturbed(folder.child("predictions"), expected)
    assert_predicted_as_undisturbed(folder.child("predictions_full"), expected, "full")
