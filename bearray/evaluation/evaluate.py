"""Decode a split over an actor pool and turn predictions into metrics."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import ray
import ray.data

from bearray.config import Normalize, RunConfig, config_hash, to_dict
from bearray.data import open_dataset
from bearray.errors import ResourceError
from bearray.evaluation.decoder import ShardDecoder
from bearray.evaluation.predictions import missing_shards, open_predictions, read_predictions
from bearray.metrics import evaluate
from bearray.runs import Storage
from bearray.task import Split, sampled_windows

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
    folders: Mapping[Normalize, Storage],
    *,
    split: Split = "test",
    on_shard: OnShard | None = None,
) -> dict[Normalize, pd.DataFrame]:
    """Decode a split, or what of it is missing, and return all predictions.

    Args:
        config: the run; `config.model.base` resolved.
        checkpoint: folder of a training checkpoint, or None for the bare base model.
        folders: where each normaliser's shards are written; an actor loads the model once for all of them.
        split: which split.
        on_shard: called as shards finish.

    Raises:
        ResumeError: a folder holds predictions made with other settings.
        DataError: after decoding, a shard is missing or damaged.
    """
    dataset = open_dataset(config.data.path, strict=config.data.strict)
    total, size = len(sampled_windows(dataset, config.data, split)), config.evaluation.shard_size
    settings = to_dict(config)
    todo = []
    for normalize, folder in folders.items():
        manifest = {
            "split": split,
            "rows": total,
            "shard_size": size,
            "decoding": settings["decoding"] | {"normalize": normalize, "batch_size": None},
            "checkpoint": checkpoint,
            "config": config_hash({k: settings[k] for k in ("data", "model", "objective", "train")}),
        }
        open_predictions(folder, manifest)
        todo += [
            {"normalize": normalize, "folder": folder.root, "shard": shard}
            for shard in missing_shards(folder, total, size)
        ]
    if todo:
        _decode(config, checkpoint, split, total, todo, len(folders) * -(-total // size), on_shard)
    return {normalize: read_predictions(folder) for normalize, folder in folders.items()}


def _decode(
    config: RunConfig,
    checkpoint: str | None,
    split: Split,
    total: int,
    todo: list[dict[str, Any]],
    shards: int,
    on_shard: OnShard | None,
) -> None:
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    pool = ray.data.from_items(todo, override_num_blocks=len(todo)).map_batches(
        ShardDecoder,
        fn_constructor_args=(to_dict(config), checkpoint, split, total),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=pool_size(config, len(todo))),
        num_cpus=config.evaluation.cpus_per_actor,
        num_gpus=1 if ray.cluster_resources().get("GPU", 0) else None,
    )
    finished = shards - len(todo)
    for _ in pool.iter_batches(batch_size=1):
        finished += 1
        if on_shard is not None:
            on_shard(finished, shards)


def evaluate_run(
    config: RunConfig, checkpoint: str | None, folder: Storage, *, on_shard: OnShard | None = None
) -> dict[str, Any]:
    """Test metrics of a trained run under its own normaliser and, if the config says so, the other one.

    Returns:
        {"test": {"trie": metrics, "full": metrics}, "seconds": wall time}; metrics as
        `bearray.metrics.evaluate`.
    """
    own = config.decoding.normalize
    folders: dict[Normalize, Storage] = {own: folder.child("predictions")}
    if config.evaluation.also_other_normalizer:
        other: Normalize = "full" if own == "trie" else "trie"
        folders[other] = folder.child(f"predictions_{other}")
    began = time.perf_counter()
    frames = decode_split(config, checkpoint, folders, on_shard=on_shard)
    seconds = time.perf_counter() - began
    return {"test": {n: evaluate(f, config.evaluation.ks) for n, f in frames.items()}, "seconds": seconds}
