"""The benchmark on Ray: training steps in Ray Train workers, decoding in a Ray Data actor.

One actor, since what is asked for is what a user costs on one device: several would share the processor and
could not take turns. Its CPUs are `evaluation.cpus_per_actor`, on a GPU cluster it has one GPU.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import ray
import ray.data
import ray.train
import ray.train.torch
from ray.exceptions import RayError
from ray.train.torch import TorchConfig, TorchTrainer

from bearray.config import RunConfig
from bearray.efficiency.parts import DECODING, DecodingPart, measure_training
from bearray.efficiency.results import PartFolder, Record
from bearray.errors import BearrayError
from bearray.quiet import quiet_libraries
from bearray.runs import Storage
from bearray.training.resources import actor_room, assigned_device, check_resources, scaling_config, uses_gpu
from bearray.training.startup import StartLimit

_STATE = "ray"
"""Ray Train's own state, in STORAGE/efficiency while the workers run."""
_RESTARTS = 3
"""How often workers that fail while they are started are started again."""


def check_cluster(run: RunConfig) -> None:
    """Refuse what would wait for ever.

    Raises:
        ResourceError: the cluster has no room for the workers or for the actor.
    """
    check_resources(run)
    actor_room(run.evaluation, 1, 1)


def train_on_ray(run: RunConfig, plan: Record) -> None:
    """Measure training steps in `train.num_workers` workers.

    Raises:
        BearrayError: a worker failed; with its reason.
    """
    gpu = uses_gpu(run.train.device)
    limits: list[Any] = [StartLimit(_RESTARTS)]  # Ray's annotation is of its first version
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={"plan": plan},
        scaling_config=scaling_config(run.train, gpu),
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        run_config=ray.train.RunConfig(name=_STATE, storage_path=plan["folder"], callbacks=limits),
    )
    folder = Storage(plan["folder"])
    folder.delete(_STATE)  # of an interrupted benchmark: what is left to do stands in the rounds
    try:
        error = trainer.fit().error
    except (ray.train.TrainingFailedError, RayError) as failed:
        raise BearrayError(f"timing the objectives failed: {reason(failed)}") from failed
    if error is not None:
        raise BearrayError(f"timing the objectives failed: {reason(error)}") from error
    folder.delete(_STATE)


def _train_worker(settings: dict[str, Any]) -> None:
    quiet_libraries()
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    measure_training(
        settings["plan"],
        rank=rank,
        world=world,
        device=ray.train.torch.get_device(),
        local_rank=context.get_local_rank(),
    )
    ray.train.report({"done": 1})


class _DecodingActor:
    def __init__(self, plan: Record) -> None:
        quiet_libraries()
        self.part = DecodingPart(plan, assigned_device())

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.part.measure([int(n) for n in batch["round"]])
        return batch


def decode_on_ray(run: RunConfig, plan: Record) -> None:
    """Measure decoding in one actor, which takes round after round.

    Raises:
        BearrayError: the actor failed; with its reason.
    """
    missing = PartFolder(Storage(plan["folder"]), DECODING).missing(plan["rounds"])
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    work = ray.data.from_items([{"round": n} for n in missing], override_num_blocks=len(missing))
    pool = work.map_batches(
        _DecodingActor,
        fn_constructor_args=(plan,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=run.evaluation.cpus_per_actor,
        num_gpus=1 if uses_gpu(run.evaluation.device) else None,
    )
    try:
        for _ in pool.iter_batches(batch_size=1):
            continue
    except RayError as failed:
        raise BearrayError(f"timing the decoders failed: {reason(failed)}") from failed


def reason(error: BaseException) -> str:
    """The last line of an error that Ray has wrapped in tracebacks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
