"""What is to be timed, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import tyro

from bearray.config import RunConfig, override, to_dict
from bearray.config.checks import at_least
from bearray.errors import ConfigError
from bearray.runs import absolute

ALL, NONE = "all", "none"


@dataclass(frozen=True, kw_only=True)
class EfficiencyConfig:
    """Time objectives and decoders on one data set and one base model, in interleaved rounds."""

    data_dir: str = ""
    """Prepared data set: a folder with items.parquet and sequences_{train,valid,test}.parquet."""
    storage: str = ""
    """Where STORAGE/efficiency goes: a folder or a URI. With the runs of a sweep in it, the figure of time
    against NDCG@10 is drawn from them."""
    base_model: str = "llama-3.2-3b"
    """A preset, hub id, folder, or local:tiny|small|medium."""
    objectives: tuple[str, ...] = (ALL,)
    """Objectives, with settings where they are not the run's: sft bear bear:form=hinge,vocabulary=full; all
    for every registered one, none to time no training."""
    decoders: tuple[str, ...] = (ALL,)
    """Decoders in the same way: beam beam:normalize=full exact; generate is transformers' own beam search
    over the trie. all for every one, none to time no decoding."""
    rounds: int = 10
    """Rounds; in each, every objective (or decoder) has one turn, in an order drawn anew. From 6 on, medians
    have intervals of 95%. A later run may ask for more."""
    steps: int = 2
    """Timed optimiser steps of a turn; in a round all objectives take the same batches."""
    warmup_steps: int = 2
    """Steps of each objective, and turns of each decoder, before the first timed one."""
    users: int = 32
    """Test windows that each decoder decodes in a turn; other ones in each round."""
    seed: int = 0
    """Seed of the order of turns."""
    local: bool = False
    """Measure in this process, without Ray and with one worker."""
    energy: bool = False
    """Measure energy with CodeCarbon (pip install bearray[energy])."""
    smoke: bool = False
    """The shortest benchmark that passes through every part: the same as --scale smoke."""
    scale: Literal["paper", "cpu", "smoke"] = "paper"
    """paper: the paper's sizes. cpu: a small local base model and adapter as in a sweep's cpu scale. smoke:
    minutes. Settings given explicitly win."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)
    """Data, model, training and decoding as in a run; `train.init_adapter` is the adapter for both."""

    def __post_init__(self) -> None:
        for name in ("rounds", "steps", "users"):
            at_least(name, getattr(self, name), 1)
        for name in ("warmup_steps", "seed"):
            at_least(name, getattr(self, name), 0)
        for name in ("objectives", "decoders"):
            given = getattr(self, name)
            if not given or (len(given) > 1 and {ALL, NONE} & set(given)):
                raise ConfigError(f"{name} is {given}; it must be names, or {ALL!r} or {NONE!r} alone")
        if self.objectives == self.decoders == (NONE,):
            raise ConfigError("objectives and decoders are both 'none'; there is nothing to time")
        if self.run.train.engine == "deepspeed":
            raise ConfigError(
                "train.engine is 'deepspeed'; the objectives share one model here, which DeepSpeed's engines "
                "cannot: it must be 'ddp' or 'auto' (which is 'ddp' here)"
            )
        if self.local and self.run.train.num_workers > 1:
            raise ConfigError(
                f"train.num_workers is {self.run.train.num_workers}; with --local it must be 1, this process"
            )

    def at_scale(
        self, scale: Literal["paper", "cpu", "smoke"], changes: Mapping[str, Any]
    ) -> EfficiencyConfig:
        """The benchmark at another scale.

        Args:
            scale: which. changes: to the run, as a sweep of that scale makes them.
        """
        if scale == "paper":
            return replace(self, scale=scale)
        small = replace(self, scale=scale, base_model="local:tiny", run=override(self.run, changes))
        if scale == "cpu":
            return small
        # Flower's rewards without SASRec, which would have to be trained first.
        changes = {"train.batch_size": 8, "train.micro_batch_size": 8, "objective.personalised": False}
        run = override(small.run, changes)
        return replace(small, smoke=True, run=run, rounds=2, steps=1, warmup_steps=1, users=8)

    def measured_run(self, data_path: str, base: str) -> RunConfig:
        """The run whose parts are timed.

        Args:
            data_path: of the data set. base: what `load_model` opens.
        """
        changes: dict[str, Any] = {"train.engine": "ddp", "data.valid_windows": 1}  # nothing is validated
        if (start := self.run.train.init_adapter) is not None:
            changes["train.init_adapter"] = absolute(start)  # workers have other working directories
        return override(self.run, {**changes, "data.path": data_path, "model.base": base})

    def settings(self) -> dict[str, Any]:
        """What a result depends on, as plain values: not places, and not how many rounds there are."""
        tree = to_dict(self)
        for name in ("data_dir", "storage", "rounds", "smoke", "scale"):
            del tree[name]
        tree["base_model"] = self.base_model.rstrip("/").rpartition("/")[2]
        tree["run"]["data"].pop("path")
        tree["run"]["model"].pop("base")
        for name in ("max_failures", "validate_every"):
            tree["run"]["train"].pop(name)
        return tree
