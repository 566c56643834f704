"""The driver of a sweep is killed, again and again, and the same command is given again: on a laptop its
cluster dies with it; elsewhere the cluster lives on, and must be rid of what the driver has started."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import ray
from ray.util import placement_group_table
from ray.util.state import list_actors

from tests.conftest import start_ray
from tests.faults.checks import Find, assert_as_undisturbed, assert_steps
from tests.faults.sweep_process import GATES, OWN_ENVIRONMENT, Gates, starting
from tests.faults.waiting import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]


@contextmanager
def living_cluster(gates: Gates, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cluster that is not the sweep's own, and that the sweeps started meanwhile connect to."""
    for name, value in {**OWN_ENVIRONMENT, GATES: str(gates.folder)}.items():
        monkeypatch.setenv(name, value)  # its workers have its environment, not the driver's
    start_ray()
    try:
        monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
        yield
    finally:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        ray.shutdown()


def left_over() -> list[str]:
    """What sweeps have left on the living cluster: actors, and places that are kept for them.

    Actors with names are Ray's own, one a cluster, once somebody has used Ray Data or Ray Train.
    """
    actors = list_actors(filters=[("state", "!=", "DEAD")], limit=1000)
    found = [str(actor.class_name) for actor in actors if not actor.name]
    return found + [g["state"] for g in placement_group_table().values() if g["state"] != "REMOVED"]


def is_alive(pid: int) -> bool:
    """Whether a process is there, and not only its exit code."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_driver_killed_in_training_and_in_the_test(
    demo_dir: Path,
    micro_base: Path,
    tmp_path: Path,
    undisturbed: Find,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gates, storage = Gates(tmp_path / "gates"), tmp_path / "storage"
    arguments = ["--data-dir", str(demo_dir), "--base-model", str(micro_base), "--storage", str(storage)]
    with starting(gates, arguments, tmp_path) as start:
        gates.close("step 4 of run 0")  # the second step of the second epoch
        first = start()
        first.until("step 4 of run 0")
        first.kill()

        with living_cluster(gates, monkeypatch):
            gates.close("step 4 of run 1")
            second = start()
            worker = second.until("step 4 of run 1")
            assert "in use by" not in second.output  # a dead process of this machine holds nothing
            second.kill()
            wait_for(lambda: not is_alive(worker), "end of the worker")  # an open gate would let it go on

            gates.close("shard trie 1")
            third = start()
            actor = third.until("shard trie 1")
            third.kill()
            wait_for(lambda: not is_alive(actor), "end of the actor")

            gates.close()
            fourth = start()
            assert fourth.wait() == 0, fourth.output
            with suppress(AssertionError):
                wait_for(lambda: not left_over(), "end of what the sweeps had started", 120)
            assert left_over() == []
            assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"]

    assert_as_undisturbed(str(storage), undisturbed)
    # The interrupted epochs' steps were made again, and nothing else: no step of a finished trial.
    assert_steps(gates, again={(0, 3), (0, 4), (1, 3), (1, 4)})
    shards = {name: n for name, n in gates.count().items() if name.startswith("shard")}
    assert shards == {"shard trie 0": 1, "shard trie 1": 2, "shard trie 2": 1}
    assert not list(storage.rglob("*.tmp")) and not list((storage / ".lock").iterdir())
