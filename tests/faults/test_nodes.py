"""The node under a run is lost: the run goes on on another one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from bearray.config import RunConfig
from bearray.evaluation import evaluate_run
from bearray.runs import Storage
from bearray.training.trainer import train
from tests.faults.harm import when_stuck
from tests.faults.helpers import Undisturbed, assert_came_to_the_same, compare
from tests.faults.planted import Fault, begun, journal, plant

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head that trains nothing, and two nodes with room for a run of two workers each."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": True})
    for _ in range(2):
        cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_the_node_under_a_run_is_removed(
    fault_run: Callable[..., RunConfig],
    undisturbed: Callable[[RunConfig], Undisturbed],
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    config, folder = fault_run(), Storage(str(tmp_path / "run"))
    expected = undisturbed(config)
    fault = Fault(str(tmp_path / "journal"), step=4, rank=1)
    plant(monkeypatch, fault)

    def remove(line: dict[str, Any]) -> None:
        (node,) = (n for n in cluster.worker_nodes if n.node_id == line["node"])
        cluster.remove_node(node, allow_graceful=False)

    with when_stuck(fault, remove):
        trained = train(config, folder)

    assert_came_to_the_same(folder, trained, expected)
    assert [begun(fault)[0, step] for step in range(9)] == [1, 1, 1, 2, 2, 1, 1, 1, 1]
    first = {line["node"] for line in journal(fault) if line["step"] == 0}
    last = {line["node"] for line in journal(fault) if line["step"] == 8}
    assert len(first) == len(last) == 1 and first != last
    assert [row["why"] for row in folder.read_lines("events.jsonl")] == ["lost"]
    compare(evaluate_run(config, trained.checkpoint, folder)["test"], expected.test)
