"""Decode a split over an actor pool and turn predictions into metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import ray
import ray.data

from bearray.config import RunConfig, config_hash, to_dict
from bearray.errors import ResourceError
from bearray.evaluation.decoder import ShardDecoder
from bearray.evaluation.predictions import missing_shards, open_predictions, read_predictions
from bearray.metrics import evaluate
from bearray.runs import Storage
from bearray.task import Split, load_task

OnShard = Callable[[int, int], None]
"""Told (shards done, shards in all)."""


def pool_size(config: RunConfig, shards: int) -> int:
    """Actors for so many shards: as asked for, else what the cluster has room for, never more than shards.

    Raises:
        ResourceError: more actors are asked for than the cluster can hold.
    """
    have, evaluation = ray.cluster_resources(), config.evaluation
    gpus = int(have.get("GPU", 0))
    room = gpus or int(have.get("CPU", 0) / evaluation.cpus_per_actor)
    if evaluation.actors is not None and evaluation.actors > room:
        raise ResourceError(
            f"evaluation.actors is {evaluation.actors}, but the cluster has room for {room}: {gpus} GPUs, "
            f"{have.get('CPU', 0):g} CPUs at evaluation.cpus_per_actor={evaluation.cpus_per_actor:g}"
        )
    if room < 1:
        raise ResourceError(
            f"evaluation.cpus_per_actor is {evaluation.cpus_per_actor:g}, but the cluster has "
            f"{have.get('CPU', 0):g} CPUs"
        )
    return max(1, min(evaluation.actors or room, shards))


def decode_split(
    config: RunConfig,
    checkpoint: str | None,
    folder: Storage,
    *,
    split: Split = "test",
    normalize: str | None = None,
    on_shard: OnShard | None = None,
) -> pd.DataFrame:
    """Decode a split, or what of it is missing, and return all predictions.

    Args:
        config: the run; `config.model.base` resolved.
        checkpoint: folder of a training checkpoint, or None for the bare base model.
        folder: where the shards are written.
        split: which split.
        normalize: instead of the config's.
        on_shard: called as shards finish.

    Raises:
        ResumeError: the folder holds predictions made with other settings.
        DataError: after decoding, a shard is missing or damaged.
    """
    normalize = normalize or config.decoding.normalize
    total, size = len(load_task(config).windows(split)), config.evaluation.shard_size
    settings = to_dict(config)
    manifest = {
        "split": split,
        "rows": total,
        "shard_size": size,
        "decoding": settings["decoding"] | {"normalize": normalize, "batch_size": None},
        "checkpoint": checkpoint,
        "config": config_hash({k: settings[k] for k in ("data", "model", "objective", "train")}),
    }
    open_predictions(folder, manifest)
    shards = -(-total // size)
    todo = missing_shards(folder, total, size)
    if todo:
        ray.data.DataContext.get_current().enable_progress_bars = False
        actors = pool_size(config, len(todo))
        gpus = 1 if ray.cluster_resources().get("GPU", 0) else None
        done = ray.data.from_items([{"shard": i} for i in todo], override_num_blocks=len(todo)).map_batches(
            ShardDecoder,
            fn_constructor_args=(settings, checkpoint, split, folder.root, normalize, total),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=config.evaluation.cpus_per_actor,
            num_gpus=gpus,
        )
        finished = shards - len(todo)
        for _ in done.iter_batches(batch_size=1):
            finished += 1
            if on_shard is not None:
                on_shard(finished, shards)
    return read_predictions(folder)


def evaluate_run(
    config: RunConfig, checkpoint: str | None, folder: Storage, *, on_shard: OnShard | None = None
) -> dict[str, Any]:
    """Test metrics of a trained run under its own normaliser and, if the config says so, the other one.

    Returns:
        {"test": {"trie": metrics, "full": metrics}, "seconds": wall time}; metrics as
        `bearray.metrics.evaluate`.
    """
    own = config.decoding.normalize
    other = "full" if own == "trie" else "trie"
    began = time.perf_counter()
    results = {}
    for normalize in (own, other) if config.evaluation.also_other_normalizer else (own,):
        target = folder.child("predictions" if normalize == own else f"predictions_{normalize}")
        frame = decode_split(config, checkpoint, target, normalize=normalize, on_shard=on_shard)
        results[normalize] = evaluate(frame, config.evaluation.ks)
    return {"test": results, "seconds": time.perf_counter() - began}
