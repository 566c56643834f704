"""Two processes on one machine, each with a Ray cluster of its own: neither takes the other's for its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
import ray
from ray.util.state import list_nodes

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ANOTHER = """
import sys
from bearray.tuning.cluster import start_local
start_local(cpus=1)
print("started", flush=True)
sys.stdin.readline()
"""


@ray.remote(num_cpus=0)
def seen() -> list[str]:
    """What Ray's state interface says from a worker, as Ray's clean-up after a stopped run asks it."""
    return [str(node.node_id) for node in list_nodes()]


def test_a_worker_asks_its_own_cluster(local_ray: None) -> None:
    own = ray.get_runtime_context().get_node_id()
    with subprocess.Popen(
        [sys.executable, "-c", ANOTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdin is not None
        assert "started" in iter(line.strip() for line in other.stdout)
        assert ray.get(seen.remote()) == [own]
        other.stdin.close()
    assert other.returncode == 0
