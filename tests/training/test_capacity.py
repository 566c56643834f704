"""How many groups of workers fit on a cluster's nodes, and what is said where none does, without a Ray."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from bearray.config import RunConfig, override
from bearray.errors import ConfigError, ResourceError
from bearray.training import capacity as module
from bearray.training import resources
from bearray.training.capacity import NODE_TYPES, Capacity, NodeType, cluster_capacity
from bearray.training.resources import check_resources, scaling_config, uses_gpu
from bearray.tuning.cluster import concurrent_trials

GPU = {"GPU": 1.0, "CPU": 1.0}
GPU_YAML = str(Path(__file__).parents[2] / "cluster" / "gpu.yaml")


def gpus(*nodes: int) -> Capacity:
    return Capacity(tuple({"GPU": float(n), "CPU": 2.0 * n} for n in nodes))


@pytest.mark.parametrize(
    ("nodes", "workers", "room"),
    [
        ((3, 3), 4, {"pack": 1, "spread": 1, "strict_pack": 0, "strict_spread": 0}),
        ((6, 6), 4, {"pack": 3, "spread": 3, "strict_pack": 2, "strict_spread": 0}),
        ((8,), 4, {"pack": 2, "spread": 2, "strict_pack": 2, "strict_spread": 0}),
        ((1, 1, 1, 1), 2, {"pack": 2, "spread": 2, "strict_pack": 0, "strict_spread": 2}),
        ((3, 1, 1), 2, {"pack": 2, "spread": 2, "strict_pack": 1, "strict_spread": 2}),
        ((4, 6), 4, {"pack": 2, "spread": 2, "strict_pack": 2, "strict_spread": 0}),
        ((), 1, {"pack": 0, "spread": 0, "strict_pack": 0, "strict_spread": 0}),
    ],
)
def test_groups_on_nodes(nodes: tuple[int, ...], workers: int, room: dict[str, int]) -> None:
    for order in itertools.permutations(nodes):
        found = {how: gpus(*order).room(GPU, workers, how) for how in room}  # type: ignore[arg-type]
        assert found == room


def test_drivers_go_where_they_cost_no_worker() -> None:
    driver = {"CPU": 0.1}
    head = {"CPU": 1.0}
    node = {"CPU": 4.0, "GPU": 4.0}
    assert Capacity((node,)).room(GPU, 2, driver=driver) == 1  # 0.1 CPU of the driver costs a worker
    assert Capacity((head, node)).room(GPU, 2, driver=driver) == 2
    assert Capacity(({"CPU": 0.15}, node, node)).room(GPU, 4, driver=driver) == 1
    assert Capacity(({"CPU": 2.0},)).room({"CPU": 0.9}, driver=driver) == 2


def test_nodes_that_may_come_are_counted_and_no_more_than_may_come() -> None:
    small, large = NodeType({"CPU": 8.0, "GPU": 1.0}, 8), NodeType({"CPU": 64.0, "GPU": 8.0}, 2)
    head = ({"CPU": 8.0},)
    grows = Capacity(head, (small, large))
    assert (grows.now("GPU"), grows.total("GPU")) == (0, 24)
    assert grows.room(GPU, 8, "strict_pack") == 2
    assert grows.room(GPU, 4, "pack") == 6
    assert Capacity(head, (small, large), most=3).total("GPU") == 17
    assert Capacity(head, (small, large), most=0).total("GPU") == 0
    assert grows.room(GPU, 1, limit=5) == 5


def node(resources: dict[str, float], group: str | None = None, alive: bool = True) -> dict[str, Any]:
    labels = {"ray.io/node-id": "x", **({"ray.io/node-group": group} if group else {})}
    return {"Alive": alive, "Resources": resources, "Labels": labels}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`cluster([node, ...], {"gpu": ...}, most)`: what Ray says of the cluster from now on."""

    def be(nodes: list[dict[str, Any]], types: dict[str, Any] | None = None, most: int | None = None) -> None:
        monkeypatch.setattr(ray, "nodes", lambda: nodes)
        monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="1.2.3.4:6379"))
        monkeypatch.setattr(ray._private.state.state, "get_cluster_config", lambda: None)
        monkeypatch.setattr(module, "_autoscaler_files", lambda _: [])
        if types is not None:
            monkeypatch.setenv(NODE_TYPES, json.dumps(types))

    return be


TYPES = {"gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 4}}


def test_nodes_that_came_are_not_counted_twice(cluster: Any) -> None:
    came = node({"CPU": 8.0, "GPU": 1.0, "node:10.0.0.2": 1.0}, "gpu")
    gone = node({"CPU": 8.0, "GPU": 1.0}, "gpu", alive=False)
    cluster([node({"CPU": 8.0}, "head"), came, gone], TYPES)
    found = cluster_capacity()
    assert found.nodes == ({"CPU": 8.0}, {"CPU": 8.0, "GPU": 1.0})
    assert [kind.most for kind in found.types] == [3]
    assert (found.now("GPU"), found.total("GPU")) == (1, 4)


def test_the_autoscalers_own_file(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster([node({"CPU": 8.0}, "head")])
    monkeypatch.setattr(module, "_autoscaler_files", lambda _: ["nowhere.yaml", GPU_YAML])
    found = cluster_capacity()
    assert found.most == 8 and sorted(kind.most for kind in found.types) == [4, 8]
    assert found.total("GPU") == 8  # not 12: max_workers is for both kinds together
    assert uses_gpu("auto") and not uses_gpu("cpu")


def test_what_rays_control_service_was_told(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.core.generated.autoscaler_pb2 import ClusterConfig, NodeGroupConfig

    group = NodeGroupConfig(name="gpu", resources={"CPU": 8, "GPU": 2}, max_count=3)
    cluster([node({"CPU": 8.0})])
    monkeypatch.setattr(
        ray._private.state.state, "get_cluster_config", lambda: ClusterConfig(node_group_configs=[group])
    )
    assert cluster_capacity().total("GPU") == 6


@pytest.mark.parametrize("told", ["{", "[]", '{"gpu": 3}', '{"gpu": {"resources": {"GPU": "many"}}}'])
def test_node_types_that_cannot_be_read(cluster: Any, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    cluster([])
    monkeypatch.setenv(NODE_TYPES, told)
    with pytest.raises(ConfigError, match=r"BEARRAY_NODE_TYPES is .*it must be JSON such as"):
        cluster_capacity()


def run(**changes: Any) -> RunConfig:
    return override(RunConfig(), {f"train.{name}": value for name, value in changes.items()})


def test_an_empty_autoscaling_cluster_trains_on_gpus(cluster: Any) -> None:
    head = node({"CPU": 8.0}, "head")
    cluster([head])
    assert not uses_gpu("auto")
    assert concurrent_trials([run(cpus_per_worker=4.0)]) == 1  # the driver's 0.1 CPU
    with pytest.raises(ResourceError, match=r"need 2 GPUs.*cluster has 0.*BEARRAY_NODE_TYPES"):
        check_resources(run(num_workers=2, device="gpu"))
    cluster([head], TYPES)
    assert uses_gpu("auto")
    check_resources(run(num_workers=4))
    assert concurrent_trials([run(num_workers=2)]) == 2
    assert concurrent_trials([run(num_workers=2)], 1) == 1
    assert concurrent_trials([run(num_workers=1), run(num_workers=4)]) == 1
    with pytest.raises(ResourceError, match=r"need 5 GPUs, one a worker, but the cluster has 4"):
        check_resources(run(num_workers=5))


def test_what_fits_on_no_node_is_refused(cluster: Any) -> None:
    cluster([node({"CPU": 16.0, "GPU": 3.0})] * 2)
    check_resources(run(num_workers=4))
    with pytest.raises(ResourceError, match=r"placement=strict_pack do not fit .* largest node has 3 GPUs"):
        check_resources(run(num_workers=4, placement="strict_pack"))
    with pytest.raises(ResourceError, match=r"placement=strict_spread do not fit"):
        check_resources(run(num_workers=3, placement="strict_spread"))


def test_the_kind_of_gpu(cluster: Any) -> None:
    cluster([node({"CPU": 8.0, "GPU": 1.0, "accelerator_type:L4": 1.0})])
    check_resources(run(accelerator="L4"))
    with pytest.raises(ResourceError, match=r"train\.accelerator is A100.* kinds are L4"):
        check_resources(run(accelerator="A100"))
    scaling = scaling_config(run(accelerator="L4", num_workers=2, placement="strict_pack").train, True)
    assert scaling._resources_per_worker_not_none["accelerator_type:L4"] == 0.001
    assert scaling.placement_strategy == "STRICT_PACK" and scaling.num_workers == 2
    with pytest.raises(ConfigError, match=r"train\.accelerator is 'L4'"):
        run(accelerator="L4", device="cpu")


def test_a_cpu_actor_leaves_a_nodes_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, list[str]] = {"GPU": []}
    context = SimpleNamespace(get_accelerator_ids=lambda: given)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert resources.assigned_device().type == "cuda"  # outside Ray
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    assert resources.assigned_device().type == "cpu"
    given["GPU"] = ["0"]
    assert resources.assigned_device().type == "cuda"
