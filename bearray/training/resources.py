"""What a run's workers take of a cluster, and whether the cluster can ever give it."""

from __future__ import annotations

import ray
import torch
from ray.train import ScalingConfig

from bearray.config import Device, EvaluationConfig, RunConfig, TrainConfig
from bearray.errors import ResourceError
from bearray.training.capacity import NODE_TYPES, Capacity, cluster_capacity, describe


def uses_gpu(device: Device, capacity: Capacity | None = None) -> bool:
    """Whether work of this device setting takes GPUs.

    auto counts what the autoscaler may add. That is known on the head alone, so what is started from there is
    told gpu or cpu and never auto.
    """
    if device != "auto":
        return device == "gpu"
    return (capacity or cluster_capacity()).total("GPU") > 0


def worker_resources(train: TrainConfig, gpu: bool) -> dict[str, float]:
    """What one training worker takes."""
    need = {"CPU": train.cpus_per_worker}
    if gpu:
        need["GPU"] = 1.0
        if train.accelerator is not None:
            need[f"accelerator_type:{train.accelerator}"] = 0.001  # as Ray asks for a kind of GPU
    return need


def actor_resources(evaluation: EvaluationConfig, gpu: bool) -> dict[str, float]:
    """What one evaluation actor takes."""
    return {"CPU": evaluation.cpus_per_actor, **({"GPU": 1.0} if gpu else {})}


def assigned_device() -> torch.device:
    """The GPU that Ray has given to this actor, else the CPU: a node's GPUs may be others'.

    Outside Ray, which asking it would start, a GPU if there is one.
    """
    if not ray.is_initialized():
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    given = ray.get_runtime_context().get_accelerator_ids().get("GPU")
    return torch.device("cuda" if given and torch.cuda.is_available() else "cpu")


def scaling_config(train: TrainConfig, gpu: bool) -> ScalingConfig:
    """How Ray Train is to start a run's workers."""
    return ScalingConfig(
        num_workers=train.num_workers,
        use_gpu=gpu,
        resources_per_worker=worker_resources(train, gpu),
        placement_strategy=train.placement.upper(),
    )


def check_resources(config: RunConfig, *, driver_cpus: float = 0.0) -> None:
    """Refuse what would wait for ever: workers that the cluster cannot hold, counting autoscaled nodes.

    Raises:
        ResourceError: with what is asked for and what there is.
    """
    train, capacity = config.train, cluster_capacity()
    gpu = uses_gpu(train.device, capacity)
    worker = worker_resources(train, gpu)
    driver = {"CPU": driver_cpus} if driver_cpus else None
    if capacity.room(worker, train.num_workers, train.placement, driver=driver, limit=1):
        return
    asked = f"train.num_workers={train.num_workers} with train.cpus_per_worker={train.cpus_per_worker:g}"
    for name, amount in worker.items():
        have = capacity.total(name)
        if name.startswith("accelerator_type:"):
            if have == 0:
                raise ResourceError(
                    f"train.accelerator is {train.accelerator}, but the cluster has no such GPU and adds "
                    f"none; its kinds are {', '.join(_kinds(capacity)) or 'not known'}"
                )
            continue
        need = amount * train.num_workers + (driver_cpus if name == "CPU" else 0.0)
        if need > have:
            unit = "GPUs, one a worker" if name == "GPU" else f"{name}s"
            raise ResourceError(
                f"{asked} need {need:g} {unit}, but the cluster has {have:g}{_hint(name, have)}"
            )
    raise ResourceError(
        f"{asked} and train.placement={train.placement} do not fit on the cluster's nodes: a worker takes "
        f"{describe(worker)}, and the largest node has {describe(_largest(capacity, worker))}"
    )


def actor_room(evaluation: EvaluationConfig, asked: int, limit: int) -> int:
    """How many evaluation actors the cluster can hold, counting autoscaled nodes, up to `limit`.

    Raises:
        ResourceError: fewer than `asked`.
    """
    capacity = cluster_capacity()
    gpu = uses_gpu(evaluation.device, capacity)
    room = capacity.room(actor_resources(evaluation, gpu), limit=max(asked, limit))
    if room >= asked:
        return room
    have = ", ".join(f"{capacity.total(name):g} {name}s" for name in (["CPU", "GPU"] if gpu else ["CPU"]))
    if asked > 1:
        raise ResourceError(
            f"evaluation.actors is {asked}, but the cluster has room for {room}: {have}, at "
            f"evaluation.cpus_per_actor={evaluation.cpus_per_actor:g}{' and a GPU' if gpu else ''} each"
        )
    raise ResourceError(
        f"evaluation.cpus_per_actor is {evaluation.cpus_per_actor:g}, but the cluster has {have}"
        + (_hint("GPU", capacity.total("GPU")) if gpu else ", and no node with as many")
    )


def _kinds(capacity: Capacity) -> list[str]:
    every = [*capacity.nodes, *(kind.resources for kind in capacity.types)]
    marked = {name for node in every for name in node if name.startswith("accelerator_type:")}
    return sorted(name.partition(":")[2] for name in marked)


def _largest(capacity: Capacity, worker: dict[str, float]) -> dict[str, float]:
    every = [*capacity.nodes, *(kind.resources for kind in capacity.types)]
    node = max(every, key=lambda node: [node.get(name, 0.0) for name in ("GPU", "CPU")])
    return {name: node.get(name, 0.0) for name in worker}


def _hint(name: str, have: float) -> str:
    if name != "GPU" or have:
        return ""
    return f" and no autoscaler that is known to add any (where there is one: {NODE_TYPES}, docs/cluster.md)"
