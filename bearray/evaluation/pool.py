"""A pool of Ray Data actors that works on shards: each loads task and model once, then takes shard after
shard."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
from ray.exceptions import RayError

from bearray.config import RunConfig, from_dict, to_dict
from bearray.errors import BearrayError
from bearray.evaluation.shards import ShardedTable, write_shard
from bearray.quiet import quiet_libraries
from bearray.runs import Storage
from bearray.task import Case, Split, load_task
from bearray.trained import load_trained
from bearray.training.capacity import Capacity, cluster_capacity
from bearray.training.resources import actor_resources, actor_room, assigned_device, uses_gpu

OnShard = Callable[[int, int], None]
"""Told (shards done, shards in all)."""


class ShardActor(ABC):
    """Makes shards of a table on a split's windows and writes them to storage.

    Args:
        config: `to_dict(RunConfig)`.
        checkpoint: folder of a training checkpoint, or None for the bare base model.
        split: which split.
    """

    def __init__(self, config: dict[str, Any], checkpoint: str | None, split: Split) -> None:
        quiet_libraries()
        self.config = from_dict(RunConfig, config)
        self.split = split
        self.device = assigned_device()
        self.task = load_task(self.config)
        self.trie = self.task.catalog.trie.to(self.device)
        # Grounding also needs the model without its adapter.
        merge = self.config.decoding.method != "grounding"
        self.model = load_trained(
            self.config.model, checkpoint, self.device, merge=merge, backbone=self.task.backbone
        )

    @abstractmethod
    def table(self, cases: Sequence[Case], job: Mapping[str, Any]) -> pa.Table:
        """The rows of a shard, one for each window.

        Args:
            cases: the shard's windows.
            job: what `make_shards` was given for it.
        """

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Make the shards of a batch (columns folder, shard, rows and those of the job) and say which they
        were."""
        for i, shard in enumerate(batch["shard"]):
            job = {name: values[i] for name, values in batch.items()}
            cases = self.task.cases(self.split, [int(row) for row in job["rows"]])
            began = time.perf_counter()
            table = self.table(cases, job)
            seconds = time.perf_counter() - began
            write_shard(Storage(str(job["folder"])), int(shard), table, seconds=seconds)
        return {"shard": batch["shard"]}


def pool_size(config: RunConfig, shards: int) -> tuple[int, int]:
    """Actors for so many shards: how many at first, and how many at most once the autoscaler has added nodes.

    As many as asked for, else as the cluster has room for, never more than shards. With none asked for,
    nodes that are there are used at once, and more are made for shards that wait.

    Raises:
        ResourceError: more actors are asked for than the cluster can hold.
    """
    evaluation = config.evaluation
    room = actor_room(evaluation, evaluation.actors or 1, shards)
    most = min(evaluation.actors or room, shards)
    if evaluation.actors is not None:
        return most, most
    live = Capacity(cluster_capacity().nodes).room(
        actor_resources(evaluation, uses_gpu(evaluation.device)), limit=most
    )
    return max(1, live), most


def make_shards(
    actor: type[ShardActor],
    config: RunConfig,
    checkpoint: str | None,
    split: Split,
    tables: Sequence[tuple[ShardedTable, Mapping[str, Any]]],
    on_shard: OnShard | None = None,
) -> None:
    """Make what is missing of some tables; an actor loads the model once for all of them.

    Args:
        actor: what makes a shard.
        config: the run; `config.model.base` resolved.
        checkpoint: folder of a training checkpoint, or None for the bare base model.
        split: the tables' split.
        tables: each with the plain values that `ShardActor.table` gets for its shards.
        on_shard: called as shards finish.

    Raises:
        ResourceError: as `pool_size`.
        BearrayError: an actor's own, such as a storage that is full. An actor that is lost is started again,
            and so is its shard.
    """
    todo: list[dict[str, Any]] = [
        {**job, "folder": table.folder.root, "shard": number, "rows": list(table.rows_of(number))}
        for table, job in tables
        for number in table.missing()
    ]
    if not todo:
        return
    first, most = pool_size(config, len(todo))
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    pool = ray.data.from_items(todo, override_num_blocks=len(todo)).map_batches(
        actor,
        fn_constructor_args=(to_dict(config), checkpoint, split),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=first, max_size=most),
        num_cpus=config.evaluation.cpus_per_actor,
        num_gpus=1 if uses_gpu(config.evaluation.device) else None,
    )
    shards = sum(table.shards for table, _ in tables)
    try:
        for done, _ in enumerate(pool.iter_batches(batch_size=1), shards - len(todo) + 1):
            if on_shard is not None:
                on_shard(done, shards)
    except RayError as error:
        own = _own_error(error)
        if own is None:
            raise
        raise own from None


def _own_error(error: BaseException | None) -> BearrayError | None:
    """The error for the user among what Ray has wrapped around it on the way from an actor, if any."""
    while error is not None:
        if isinstance(error, BearrayError) and not isinstance(error, RayError):
            return error
        error = getattr(error, "cause", None) or error.__cause__
    return None
