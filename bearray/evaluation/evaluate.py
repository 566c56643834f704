"""Decode a split over an actor pool and turn predictions into metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bearray.config import Decoded, DecodingConfig, Normalize, RunConfig, override, to_dict
from bearray.data import open_dataset
from bearray.evaluation.pool import OnShard, ShardActor, make_shards
from bearray.evaluation.predictions import predictions_in, to_table
from bearray.metrics import evaluate
from bearray.recommend import DecoderInputs, recommend_with_proof
from bearray.runs import Storage
from bearray.task import Case, Split, sampled_windows
from bearray.trained import model_identity

PENALISED: dict[Decoded, Decoded] = {"trie": "trie_lp1", "full": "full_lp1"}


def decoding_for(own: DecodingConfig, name: Decoded) -> DecodingConfig:
    """A run's decoding settings, changed to what `name` says.

    Exact search ranks by probability, so it has no length penalty, whatever the run's own is.
    """
    if name == "exact":
        return override(own, {"method": "exact", "length_penalty": 0.0})
    if name in PENALISED.values():
        return override(own, {"normalize": name.removesuffix("_lp1"), "length_penalty": 1.0})
    return override(own, {"normalize": name})


class ShardDecoder(ShardActor):
    """Decodes shards; a job says how (`Decoded`)."""

    @cached_property
    def inputs(self) -> DecoderInputs:
        return DecoderInputs(self.task, self.device)

    def table(self, cases: Sequence[Case], job: Mapping[str, Any]) -> pa.Table:
        decoding = decoding_for(self.config.decoding, str(job["decoded"]))  # type: ignore[arg-type]
        titles, scores, proven = recommend_with_proof(self.model, cases, decoding, self.inputs)
        item_of_title = np.array([items[0] for items in self.task.catalog.items_of_title])
        return to_table(
            cases, titles, scores, item_of_title, proven=proven if decoding.method == "exact" else None
        )


def decode_split(
    config: RunConfig,
    checkpoint: str | None,
    folders: Mapping[Decoded, Storage],
    *,
    split: Split = "test",
    on_shard: OnShard | None = None,
) -> dict[Decoded, pd.DataFrame]:
    """Decode a split, or what of it is missing, and return all predictions.

    Args:
        config: the run; `config.model.base` resolved.
        checkpoint: folder of a training checkpoint, or None for the bare base model.
        folders: where each decoding's shards are written; an actor loads the model once for all of them.
        split: which split.
        on_shard: called as shards finish.

    Raises:
        ResumeError: a folder holds predictions made with other settings.
        DataError: after decoding, a shard is missing or damaged.
    """
    dataset = open_dataset(config.data.path, strict=config.data.strict)
    total, size = len(sampled_windows(dataset, config.data, split)), config.evaluation.shard_size
    tables, jobs = {}, []
    for name, folder in folders.items():
        decoding = to_dict(decoding_for(config.decoding, name))
        tables[name] = predictions_in(folder, total, size, exact=decoding["method"] == "exact")
        tables[name].begin(
            {
                "split": split,
                "rows": total,
                "shard_size": size,
                "decoding": decoding | {"batch_size": None},
                **model_identity(config, checkpoint, dataset),
            }
        )
        jobs.append((tables[name], {"decoded": name}))
    make_shards(ShardDecoder, config, checkpoint, split, jobs, on_shard)
    return {name: table.read() for name, table in tables.items()}


def evaluate_run(
    config: RunConfig, checkpoint: str | None, folder: Storage, *, on_shard: OnShard | None = None
) -> dict[str, Any]:
    """Test metrics of a trained run under its own normaliser and, if the config says so, under the other one
    by exact search, and with length penalty 1.

    Returns:
        {"test": {"trie": metrics, "full": metrics, "exact": metrics and "proven", the share of lists that are
        proven to be the true best ones}, "seconds": {"test": wall time of all, "decoding": {"trie": seconds
        that its shards took in their actors, ...}}}; with length penalty 1 "trie_lp1" and "full_lp1"; metrics
        as `bearray.metrics.evaluate`.
    """
    own = config.decoding.normalize
    folders: dict[Decoded, Storage] = {own: folder.child("predictions")}
    if config.evaluation.also_other_normalizer and config.decoding.method != "grounding":  # it has none
        other: Normalize = "full" if own == "trie" else "trie"
        folders[other] = folder.child(f"predictions_{other}")
    if config.evaluation.also_length_penalty and config.decoding.length_penalty != 1:
        for name in tuple(folders):
            folders[PENALISED[name]] = folder.child(f"predictions_{PENALISED[name]}")
    if config.evaluation.exact_test and config.decoding.method != "exact":
        folders["exact"] = folder.child("predictions_exact")
    began = time.perf_counter()
    frames = decode_split(config, checkpoint, folders, on_shard=on_shard)
    seconds = time.perf_counter() - began
    test: dict[str, Any] = {}
    for name, frame in frames.items():
        test[name] = evaluate(frame, config.evaluation.ks)
        if "proven" in frame:
            test[name]["proven"] = float(frame["proven"].mean())
    decoding = {name: f.attrs["seconds"] for name, f in frames.items() if "seconds" in f.attrs}
    return {"test": test, "seconds": {"test": seconds, "decoding": decoding}}
