"""The driver of a sweep is killed, twice, and the same command is given again: on a laptop its cluster dies
with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.checks import Find, assert_as_undisturbed, assert_steps
from tests.faults.sweep_process import Gates, starting

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_driver_killed_in_training_and_in_the_test(
    demo_dir: Path, micro_base: Path, tmp_path: Path, undisturbed: Find
) -> None:
    gates, storage = Gates(tmp_path / "gates"), tmp_path / "storage"
    arguments = ["--data-dir", str(demo_dir), "--base-model", str(micro_base), "--storage", str(storage)]
    with starting(gates, arguments, tmp_path) as start:
        gates.close("step 4 of run 1")  # the second step of the second epoch of the second trial
        first = start()
        first.until("step 4 of run 1")
        first.kill()

        gates.close("shard trie 1")
        second = start()
        second.until("shard trie 1")
        assert "in use by" not in second.output  # a dead process of this machine holds nothing
        second.kill()

        gates.close()
        third = start()
        assert third.wait() == 0, third.output

    assert_as_undisturbed(str(storage), undisturbed)
    # The interrupted epoch's steps were made again, and nothing else: no step of the finished trial.
    assert_steps(gates, again={(1, 3), (1, 4)})
    shards = {name: n for name, n in gates.count().items() if name.startswith("shard")}
    assert shards == {"shard trie 0": 1, "shard trie 1": 2, "shard trie 2": 1}
    assert not list(storage.rglob("*.tmp")) and not list((storage / ".lock").iterdir())
