"""The pruning analysis in Ray Data actors: `bearray.pruning.measure` on a split, by shards, resumable."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bearray.backbones.load import load_tokenizer
from bearray.config import Normalize, RunConfig, override
from bearray.data import open_dataset
from bearray.errors import ConfigError
from bearray.evaluation.pool import OnShard, ShardActor, make_shards
from bearray.evaluation.shards import MANIFEST, ShardedTable
from bearray.pruning import COLUMNS, WIDTHS, measure, summarize
from bearray.runs import Storage
from bearray.task import Case, Split, sampled_windows
from bearray.trained import TrainedRun, model_identity, relocated

SUMMARY = "summary.json"
SHARD_SIZE = 64
"""Windows in a shard at most: a case costs many times what its evaluation does, and a lost actor a shard."""

_INT, _FLOAT, _BOOL = pa.int32(), pa.float64(), pa.bool_()
_TYPES: dict[str, pa.DataType] = {
    "row": _INT,
    "user_id": _INT,
    "target": _INT,
    "warm": _BOOL,
    "target_score": _FLOAT,
    "steps": _INT,
    "branching": _INT,
    "violations": _INT,
    "first_violation": _INT,
    "rank": _FLOAT,
    "rank_proven": _BOOL,
    "beam_rank": _FLOAT,
    "beam_proven": _BOOL,
    "cut_step": _INT,
    "cut_gap": _FLOAT,
    "cut_violates": _BOOL,
    "pool_rank": _FLOAT,
    "width_ranks": pa.list_(_FLOAT),
    "exact_rank": _FLOAT,
    "exact_proven": _BOOL,
    "expanded": pa.list_(pa.int64()),
    "seconds": pa.list_(_FLOAT),
}
SCHEMA = pa.schema([(name, _TYPES[name]) for name in COLUMNS])
"""What the columns say stands in `bearray.pruning.measure`."""


class ShardMeasurer(ShardActor):
    """Measures shards; a job says with which widths and budget."""

    def table(self, cases: Sequence[Case], job: Mapping[str, Any]) -> pa.Table:
        frame = measure(
            self.model,
            cases,
            self.trie,
            self.config.decoding,
            widths=[int(width) for width in job["widths"]],
            node_budget=int(job["node_budget"]) or None,
            pad_token_id=self.task.pad_token_id,
            device=self.device,
        )
        return to_table(frame)


def to_table(frame: pd.DataFrame) -> pa.Table:
    """A shard's rows from `measure`'s, by column name; NaN stays NaN and does not become an empty value."""
    return pa.table({name: pa.array(list(frame[name]), _TYPES[name]) for name in COLUMNS}, schema=SCHEMA)


def sample_rows(total: int, windows: int | None, seed: int) -> list[int]:
    """The test cases to measure, in order: all `total`, or a random sample of `windows` of them.

    A smaller sample is part of a larger one of the same seed.

    Raises:
        ConfigError: windows below 1.
    """
    if windows is not None and windows < 1:
        raise ConfigError(f"the number of windows is {windows}; it must be at least 1, or none for all")
    if windows is None or windows >= total:
        return list(range(total))
    return sorted(np.random.default_rng(seed).permutation(total)[:windows].tolist())


def measurements_in(folder: Storage) -> pd.DataFrame:
    """A finished analysis, one row a test case; columns as `bearray.pruning.measure`.

    Raises:
        MissingFileError: the folder has no manifest.
        DataError: a shard is missing or damaged; the message names it.
    """
    made = folder.read_json(MANIFEST)
    rows = sample_rows(made["of"], made["rows"], made["sample_seed"])
    return ShardedTable(folder, SCHEMA, rows, made["shard_size"], "measurements").read()


def begin_measuring(
    config: RunConfig,
    checkpoint: str | None,
    folder: Storage,
    *,
    split: Split = "test",
    windows: int | None = None,
    widths: Sequence[int] = WIDTHS,
    node_budget: int | None = None,
) -> ShardedTable:
    """Start or continue a folder of measurements; arguments and errors as `measure_split`. Needs no Ray."""
    _check(config, widths, node_budget)
    dataset = open_dataset(config.data.path, strict=config.data.strict)
    total = len(sampled_windows(dataset, config.data, split))
    rows = sample_rows(total, windows, config.data.sample_seed)
    size = min(SHARD_SIZE, config.evaluation.shard_size)
    table = ShardedTable(folder, SCHEMA, rows, size, "measurements")
    table.begin(
        {
            "split": split,
            "rows": len(rows),
            "of": total,
            "sample_seed": config.data.sample_seed,
            "shard_size": size,
            "normalize": config.decoding.normalize,
            "beam_width": config.decoding.beam_width,
            "widths": list(widths),
            "node_budget": node_budget,
            **model_identity(config, checkpoint, dataset),
        }
    )
    return table


def measure_split(
    config: RunConfig,
    checkpoint: str | None,
    folder: Storage,
    *,
    split: Split = "test",
    windows: int | None = None,
    widths: Sequence[int] = WIDTHS,
    node_budget: int | None = None,
    on_shard: OnShard | None = None,
) -> pd.DataFrame:
    """Measure pruning on a split, or what of it is missing, and return all rows.

    Args:
        config: the run; `config.model.base` resolved. `config.decoding` is what is analysed; of `evaluation`
            the number of actors, their CPUs and, where it is below `SHARD_SIZE`, the shard size are used.
        checkpoint: folder of a training checkpoint, or None for the bare base model.
        folder: where the shards are written.
        split: which split.
        windows: how many of the run's windows of the split, a random sample; None: all.
        widths: beam widths to compare with the run's own.
        node_budget: prefixes that exact search may expand for one case; None: until proven.
        on_shard: called as shards finish.

    Returns:
        Columns as `bearray.pruning.measure`, sorted by row.

    Raises:
        ConfigError: a number below 1, or a length penalty, since pruning is about probabilities.
        ResumeError: the folder holds measurements made with other settings.
        DataError: after measuring, a shard is missing or damaged.
    """
    table = begin_measuring(
        config,
        checkpoint,
        folder,
        split=split,
        windows=windows,
        widths=widths,
        node_budget=node_budget,
    )
    job = {"widths": list(widths), "node_budget": node_budget or 0}
    make_shards(ShardMeasurer, config, checkpoint, split, [(table, job)], on_shard)
    return table.read()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Analysis:
    """What is to be measured of a run."""

    split: Split = "test"
    windows: int | None = None
    """Test cases, a random sample of the run's; None: all of them."""
    widths: tuple[int, ...] = WIDTHS
    """Beam widths to compare with the run's own."""
    node_budget: int | None = None
    """Prefixes that exact search may expand for one case; None: until proven."""
    normalize: Normalize | None = None
    """None: the run's own."""

    def folder(self, run: TrainedRun) -> Storage:
        """RUN/pruning; what is not of the test split and the run's own normaliser says so in its name."""
        own = run.config.decoding.normalize
        parts = [self.normalize if self.normalize not in (None, own) else None, self.split]
        return run.folder.child("_".join(["pruning", *(p for p in parts if p and p != "test")]))

    def settings(
        self, run: TrainedRun, *, data_dir: str | None = None, base_model: str | None = None
    ) -> RunConfig:
        """The run's settings with those of the analysis, and everything checked that a cluster would only
        fail on later.

        Raises:
            BearrayError: data or base model that are not there or not the run's, a setting that cannot work.
        """
        config = relocated(run, data_dir=data_dir, base_model=base_model)
        config = override(
            config,
            {
                "decoding.normalize": self.normalize or config.decoding.normalize,
                # Pruning is what beam search does to titles by their probability, among all titles.
                "decoding.method": "beam",
                "decoding.exclude_history": False,
                "decoding.length_penalty": 0.0,
            },
        )
        _check(config, self.widths, self.node_budget)
        sample_rows(1, self.windows, 0)  # for its check
        load_tokenizer(config.model.base)
        return config

    def options(self) -> dict[str, Any]:
        """Arguments of `begin_measuring` and `measure_split`."""
        return {name: getattr(self, name) for name in ("split", "windows", "widths", "node_budget")}


def analyse_run(
    run: TrainedRun, config: RunConfig, analysis: Analysis, *, on_shard: OnShard | None = None
) -> dict[str, Any]:
    """Measure a run and write the summary into its folder.

    Args:
        run: the run. config: as `analysis.settings` returns.

    Returns:
        The content of summary.json: {"settings": what was measured, "summary": as
        `bearray.pruning.summarize`}.

    Raises:
        As `measure_split`.
    """
    folder = analysis.folder(run)
    frame = measure_split(config, run.checkpoint, folder, **analysis.options(), on_shard=on_shard)
    summary = summarize(frame, beam_width=config.decoding.beam_width, widths=analysis.widths)
    content = {"settings": folder.read_json(MANIFEST), "summary": summary}
    folder.write_json(SUMMARY, content)
    return content


def forget(folder: Storage) -> None:
    """Delete an analysis, and nothing else that may stand in its folder."""
    if not folder.exists(MANIFEST):
        return
    for name in folder.names():
        if name in (SUMMARY, MANIFEST) or (name.startswith("part-") and name.endswith(".parquet")):
            folder.delete(name)


def _check(config: RunConfig, widths: Sequence[int], node_budget: int | None) -> None:
    for name, values in (("widths", widths), ("node_budget", [] if node_budget is None else [node_budget])):
        for value in values:
            if value < 1:
                raise ConfigError(f"{name}: {value} cannot work; it must be at least 1")
    if config.decoding.length_penalty:
        raise ConfigError(
            f"decoding.length_penalty is {config.decoding.length_penalty}; pruning is measured by "
            "probability, with 0"
        )
