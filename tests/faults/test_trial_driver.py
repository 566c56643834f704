"""The process that drives a trial is killed: Ray Tune starts it again, and the run continues."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.faults.checks import Find, assert_as_undisturbed, assert_steps
from tests.faults.helpers import wait_for
from tests.faults.sweep_process import Gates, starting

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_trial_driver_killed_in_the_middle_of_an_epoch(
    demo_dir: Path, micro_base: Path, tmp_path: Path, undisturbed: Find
) -> None:
    gates, storage = Gates(tmp_path / "gates"), tmp_path / "storage"
    arguments = ["--data-dir", str(demo_dir), "--base-model", str(micro_base), "--storage", str(storage)]
    with starting(gates, arguments, tmp_path) as start:
        gates.close("step 4 of run 0")
        sweep = start()
        worker = sweep.until("step 4 of run 0")
        driver = gates.waiting("trial")
        assert driver is not None and driver not in (worker, sweep.process.pid)
        os.kill(driver, signal.SIGKILL)
        wait_for(lambda: not psutil.pid_exists(worker), "end of the lost trial's worker", 600)
        gates.close()
        assert sweep.wait() == 0, sweep.output

    assert_as_undisturbed(str(storage), undisturbed)
    assert gates.count()["trial"] == 3  # of two trials
    assert_steps(gates, again={(0, 3), (0, 4)})
