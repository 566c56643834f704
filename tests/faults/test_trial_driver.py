"""While a sweep trains, a second one on its storage is refused, and the process that drives its trial is
killed: Ray Tune starts it again, and the run continues."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.faults.checks import Find, assert_as_undisturbed, assert_steps
from tests.faults.sweep_process import Gates, starting
from tests.faults.waiting import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]


def files(storage: Path) -> set[str]:
    """All files but those that the sweep under way may write meanwhile: its heartbeat and Tune's record."""
    return {
        str(f) for f in storage.rglob("*") if f.is_file() and "tune" not in f.parts and ".tmp" not in f.name
    }


def test_a_second_sweep_and_a_trial_driver_killed_in_the_middle_of_an_epoch(
    demo_dir: Path, micro_base: Path, tmp_path: Path, undisturbed: Find, capsys: pytest.CaptureFixture[str]
) -> None:
    from bearray.commands.bench import objectives

    gates, storage = Gates(tmp_path / "gates"), tmp_path / "storage"
    arguments = ["--data-dir", str(demo_dir), "--base-model", str(micro_base), "--storage", str(storage)]
    with starting(gates, arguments, tmp_path) as start:
        gates.close("step 4 of run 0")
        sweep = start()
        worker = sweep.until("step 4 of run 0")
        before = files(storage)
        second = start()
        assert second.wait() == 2, second.output
        (line,) = second.output.strip().splitlines()
        assert line.startswith(f"error: {storage} is in use by a sweep on ")
        assert f"process {sweep.process.pid}, since 20" in line
        # So is a benchmark, whose times would be disturbed.
        one = [*arguments, "--local", "--rounds", "1", "--users", "2", "--decoders", "beam"]
        assert objectives(one) == 2
        assert f"{storage} is in use by a sweep" in capsys.readouterr().err
        assert files(storage) == before

        driver = gates.waiting("trial")
        assert driver is not None and driver not in (worker, sweep.process.pid)
        os.kill(driver, signal.SIGKILL)
        wait_for(lambda: not psutil.pid_exists(worker), "end of the lost trial's worker", 600)
        gates.close()
        assert sweep.wait() == 0, sweep.output

    assert_as_undisturbed(str(storage), undisturbed)
    assert gates.count()["trial"] == 3  # of two trials
    assert_steps(gates, again={(0, 3), (0, 4)})
    assert not list((storage / ".lock").iterdir())
