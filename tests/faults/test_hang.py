"""Workers that hang: found out in time, and started again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from bearray.config import RunConfig
from bearray.runs import Storage
from bearray.training.trainer import train
from tests.faults.harm import when_stuck
from tests.faults.helpers import Undisturbed, assert_came_to_the_same
from tests.faults.planted import Fault, begun, plant

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

SECONDS = 15.0
"""More than a step takes on a machine that is busy with other things."""


def test_a_worker_that_sleeps_for_ever(
    fault_run: Callable[..., RunConfig],
    undisturbed: Callable[[RunConfig], Undisturbed],
    local_ray: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    config, folder = fault_run({"train.hang_timeout_s": SECONDS}), Storage(str(tmp_path / "run"))
    fault = Fault(str(tmp_path / "journal"), step=4, rank=1)
    plant(monkeypatch, fault)
    trained = train(config, folder)

    assert_came_to_the_same(folder, trained, undisturbed(fault_run()))
    times = begun(fault)
    assert [times[0, step] for step in range(9)] == [1, 1, 1, 2, 2, 1, 1, 1, 1]
    (row,) = folder.read_lines("events.jsonl")
    assert (row["why"], row["ended_the_run"]) == ("hang", False)
    # As a rule it is rank 1 that speaks first; on a very busy machine it may be the one that waits for it.
    said = {1: "rank 1 made no progress for ", 0: "rank 0 waited for others for "}[row["ranks"][0]]
    assert row["event"].startswith(said) and "after step 3" in row["event"]
    assert trained.events == (row["event"],)
    assert not folder.exists("hung")


def test_a_worker_whose_process_is_stopped(
    fault_run: Callable[..., RunConfig],
    undisturbed: Callable[[RunConfig], Undisturbed],
    local_ray: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Nothing in the process can act any more, so it is Ray's controller that must notice."""
    config = fault_run({"train.hang_timeout_s": SECONDS, "train.num_workers": 1})
    folder = Storage(str(tmp_path / "run"))
    fault = Fault(str(tmp_path / "journal"), step=4)
    plant(monkeypatch, fault)
    stopped: list[psutil.Process] = []

    def stop(line: dict[str, Any]) -> None:
        stopped.append(psutil.Process(line["pid"]))
        os.kill(line["pid"], signal.SIGSTOP)

    with when_stuck(fault, stop):
        trained = train(config, folder)

    assert_came_to_the_same(folder, trained, undisturbed(fault_run()))
    assert [begun(fault)[0, step] for step in range(9)] == [1, 1, 1, 2, 2, 1, 1, 1, 1]
    (row,) = folder.read_lines("events.jsonl")
    assert row["why"] == "hang" and "rank 0 gave no sign of life" in row["event"]
    assert not stopped[0].is_running() or stopped[0].status() == psutil.STATUS_ZOMBIE
