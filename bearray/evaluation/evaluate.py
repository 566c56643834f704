"""Decode a split over an actor pool and turn predictions into metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bearray.config import Normalize, RunConfig, override, to_dict
from bearray.data import open_dataset
from bearray.evaluation.pool import OnShard, ShardActor, make_shards
from bearray.evaluation.predictions import predictions_in, to_table
from bearray.evaluation.trained import model_identity
from bearray.metrics import evaluate
from bearray.recommend import DecoderInputs, recommend
from bearray.runs import Storage
from bearray.task import Case, Split, sampled_windows


class ShardDecoder(ShardActor):
    """Decodes shards; a job says which normaliser."""

    @cached_property
    def inputs(self) -> DecoderInputs:
        return DecoderInputs(self.task, self.device)

    def table(self, cases: Sequence[Case], job: Mapping[str, Any]) -> pa.Table:
        titles, scores = recommend(
            self.model,
            cases,
            override(self.config.decoding, {"normalize": str(job["normalize"])}),
            self.inputs,
        )
        item_of_title = np.array([items[0] for items in self.task.catalog.items_of_title])
        return to_table(cases, titles, scores, item_of_title)


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
    tables = {n: predictions_in(folder, total, size) for n, folder in folders.items()}
    for normalize, table in tables.items():
        table.begin(
            {
                "split": split,
                "rows": total,
                "shard_size": size,
                "decoding": to_dict(config.decoding) | {"normalize": normalize, "batch_size": None},
                **model_identity(config, checkpoint, dataset),
            }
        )
    jobs = [(table, {"normalize": normalize}) for normalize, table in tables.items()]
    make_shards(ShardDecoder, config, checkpoint, split, jobs, on_shard)
    return {normalize: table.read() for normalize, table in tables.items()}


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
    if config.evaluation.also_other_normalizer and config.decoding.method != "grounding":  # it has none
        other: Normalize = "full" if own == "trie" else "trie"
        folders[other] = folder.child(f"predictions_{other}")
    began = time.perf_counter()
    frames = decode_split(config, checkpoint, folders, on_shard=on_shard)
    seconds = time.perf_counter() - began
    return {"test": {n: evaluate(f, config.evaluation.ks) for n, f in frames.items()}, "seconds": seconds}
