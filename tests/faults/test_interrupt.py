"""Ctrl-C while a sweep prepares, trains and tests: it ends in order, and the storage is continued."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.faults.checks import Find, assert_as_undisturbed, assert_steps
from tests.faults.sweep_process import Gates, SweepProcess, starting
from tests.faults.waiting import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]


def assert_ended_in_order(sweep: SweepProcess, storage: Path) -> None:
    assert sweep.wait() == 130, sweep.output
    last = sweep.output.strip().splitlines()[-1]
    assert last == "interrupted; run the same command again to continue"
    assert "Traceback" not in sweep.output and "Error" not in sweep.output, sweep.output
    wait_for(lambda: not sweep.left(), "end of what the sweep has started", 60)
    assert not list((storage / ".lock").iterdir())


def test_ctrl_c_at_any_time(demo_dir: Path, micro_base: Path, tmp_path: Path, undisturbed: Find) -> None:
    gates, storage = Gates(tmp_path / "gates"), tmp_path / "storage"
    arguments = ["--data-dir", str(demo_dir), "--base-model", str(micro_base), "--storage", str(storage)]
    with starting(gates, arguments, tmp_path) as start:
        gates.close("preparation")
        sweep = start()
        sweep.until("preparation")
        sweep.process.send_signal(signal.SIGINT)
        assert_ended_in_order(sweep, storage)

        gates.close("step 4 of run 1")
        sweep = start()
        sweep.until("step 4 of run 1")
        # As a terminal does it, to the whole group, and twice.
        os.killpg(sweep.process.pid, signal.SIGINT)
        os.killpg(sweep.process.pid, signal.SIGINT)
        assert_ended_in_order(sweep, storage)

        gates.close("shard trie 1")
        sweep = start()
        sweep.until("shard trie 1")
        sweep.process.send_signal(signal.SIGINT)
        assert_ended_in_order(sweep, storage)

        gates.close()
        sweep = start()
        assert sweep.wait() == 0, sweep.output

    assert_as_undisturbed(str(storage), undisturbed)
    assert_steps(gates, again={(1, 3), (1, 4)})
    assert [gates.count()[f"shard trie {number}"] for number in range(3)] == [1, 2, 1]
