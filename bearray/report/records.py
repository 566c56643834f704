"""What a report is made from: run folders and sweeps as plain records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from bearray.config import Decoded, config_hash

DECODINGS: tuple[str, ...] = get_args(Decoded)
"""How test cases were decoded: beam search (or the run's own decoder) by one of the two normalisers, exact
search by the run's own normaliser, or a normaliser with length penalty 1."""
ALL_TITLES = "all titles"
"""What a baseline's test is called instead: it scores all titles, without beams or normaliser."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run folder (DESIGN 7)."""

    id: str
    """The folder, relative to the storage, with forward slashes."""
    folder: Path
    settings: Mapping[str, Any]
    """`to_dict(RunConfig)`: the groups data, model, objective, train, decoding, evaluation."""
    role: str
    """Either method or trial."""
    method: str
    dataset: str
    base_model: str
    base_model_kind: str
    data_hash: str | None
    git: str | None
    created: str | None
    versions: Mapping[str, str]
    steps: pd.DataFrame
    """One row an optimiser step that was logged, by step; after a restart the later record of a step
    counts."""
    epochs: pd.DataFrame
    """One row a finished epoch, by epoch."""
    result: Mapping[str, Any] | None
    predictions: Mapping[str, pd.DataFrame] = field(repr=False)
    """By decoding (`DECODINGS`): one row a test case, sorted by `row`."""

    @property
    def status(self) -> str:
        """unfinished without a result.json, else what that says: finished, failed, or a word of later
        versions."""
        return "unfinished" if self.result is None else str(self.result["status"])

    @property
    def reason(self) -> str:
        """Why a run is not in the tables though it should be; empty for all others."""
        if self.result is None:
            done = f"epoch {int(self.epochs['epoch'].iloc[-1])}" if len(self.epochs) else "no epoch"
            last = f", last logged step {int(self.steps['step'].iloc[-1])}" if len(self.steps) else ""
            return f"there is no result.json; {done} finished{last}"
        if self.status == "failed":
            return str(self.result.get("error") or "no reason was recorded")
        if self.status == "stopped":
            return str(self.result.get("stopped") or "no reason was recorded")
        if self.status != "finished":
            return str(self.result.get("error") or "")
        if self.role == "method" and not self.predictions:
            return "trained, but the test split was not decoded to its end"
        return ""

    @property
    def events(self) -> tuple[str, ...]:
        """What befell the run in training, such as workers that were lost or hung."""
        return tuple(str(event) for event in (self.result or {}).get("events") or ())

    @property
    def chosen(self) -> bool:
        return bool(self.result and self.result.get("chosen"))

    @property
    def normalize(self) -> str:
        """The normaliser of the run's own decoding, which also chose its checkpoint."""
        return str(self.settings.get("decoding", {}).get("normalize", "trie"))

    @property
    def objective(self) -> str:
        return str(self.settings.get("objective", {}).get("name", self.method)).lower()

    @property
    def seed(self) -> int | None:
        """Seed of the training; None where the settings have none."""
        groups = (self.settings, self.settings.get("baseline") or {})
        seeds = [(group.get("train") or {}).get("seed") for group in groups]
        return next((int(seed) for seed in seeds if seed is not None), None)

    @property
    def started_from(self) -> str | None:
        """Id of the run whose adapter this one started from, where it was one of the same sweep."""
        place = str((self.settings.get("train") or {}).get("init_adapter") or "")
        return place.removeprefix("run:") if place.startswith("run:") else None

    @property
    def config_hash(self) -> str:
        return config_hash(dict(self.settings))

    @property
    def is_baseline(self) -> bool:
        """Whether it knows items by number."""
        return "baseline" in self.settings

    def tested(self, decoding: str) -> pd.DataFrame | None:
        """The test cases by a decoding; None where they were not decoded so. A baseline's one result stands
        for every decoding."""
        return self.predictions.get(DECODINGS[0] if self.is_baseline else decoding)

    def seconds(self, part: str) -> float | None:
        """Seconds of train, valid or test; None where they were not recorded."""
        return number(((self.result or {}).get("seconds") or {}).get(part))

    def decoding_seconds(self, decoding: str) -> float | None:
        """Seconds that the actors took for the test cases, by decoding; None where they were not recorded."""
        seconds = (self.result or {}).get("seconds") or {}
        return number((seconds.get("decoding") or {}).get(decoding))

    def proven(self) -> float | None:
        """Share of the lists of exact search that are proven to be the true best ones."""
        test = (self.result or {}).get("test") or {}
        return number((test.get("exact") or {}).get("proven"))

    def valid(self, metric: str) -> float | None:
        """A validation metric at the best epoch: from result.json, else at the best epoch so far by
        NDCG@10."""
        value = number(((self.result or {}).get("valid") or {}).get(metric))
        if value is None and f"valid_{metric}" in self.epochs and "valid_ndcg@10" in self.epochs:
            ndcg = self.epochs["valid_ndcg@10"]
            if ndcg.notna().any():
                return number(float(self.epochs[f"valid_{metric}"].iloc[int(ndcg.argmax())]))
        return value


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One sweep.json."""

    id: str
    sweep: Mapping[str, Any]
    data_stats: Mapping[str, Any]
    departures: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Everything that a report is made from."""

    name: str
    """The storage folder's own name; never its full path, which says nothing to a reader elsewhere."""
    runs: tuple[Run, ...]
    sweeps: tuple[Sweep, ...]


def number(value: object) -> float | None:
    """A finite number, or None for anything else (JSON's null, a missing key, NaN)."""
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:  # an integer with more digits than any measurement
        return None
    return None
