"""The main table: methods against metrics, with intervals and paired tests, as measured.

One table belongs to one data set, base model and normaliser, since numbers from different ones are not
comparable, and has three parts: all test cases, those with a warm target (seen in training) and those with
a cold one. Everything is computed from the ranks in the run's predictions. Runs are compared only where
they were tested on the same cases; where they were not, the table says so and draws no comparison.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bearray.config import differences
from bearray.metrics import gains, hits
from bearray.report.collect import NORMALIZERS, Run
from bearray.stats import bootstrap_interval, holm, paired_test

METRICS = ("ndcg@5", "ndcg@10", "hr@5", "hr@10", "hr@1")
"""Columns in the order of the paper's Table 2; @1 last (NDCG@1 equals HR@1)."""
POPULATIONS = ("all", "warm", "cold")
POPULATION_WORDS = {
    "all": "All test cases",
    "warm": "Warm targets (seen in training)",
    "cold": "Cold targets (never seen in training)",
}
NORMALIZER_WORDS = {
    "trie": "softmax over the valid next tokens (trie)",
    "full": "softmax over the vocabulary (full)",
}
ALPHA = 0.05
"""Level of the tests, after Holm's correction."""

_HARMLESS = (
    "data.path",
    "decoding.batch_size",
    "decoding.normalize",
    "evaluation.",
    "train.cpus_per_worker",
    "train.max_failures",
)
"""Settings that say where and how fast, or that the tables treat apart; not what was trained or decoded."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A row against the best other row, paired over users (per-user means)."""

    versus: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float

    @property
    def verdict(self) -> str:
        """better, worse or undecided, at level ALPHA after correction."""
        if not self.p_holm < ALPHA:
            return "undecided"
        return "better" if self.difference > 0 else "worse"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One metric of one row: mean over test cases with its 95% interval over users."""

    mean: float
    low: float
    high: float
    place: int
    """1 best, 2 second, 0 neither (or nothing to compare with); equal means share a place."""
    test: Comparison | None


@dataclass(frozen=True, kw_only=True)
class Row:
    label: str
    run: Run
    n: int
    users: int
    cells: Mapping[str, Cell]


@dataclass(frozen=True, kw_only=True)
class Part:
    """The rows for one population of test cases."""

    population: str
    rows: tuple[Row, ...]
    tests: int
    """Distinct comparisons that Holm's correction counts."""


@dataclass(frozen=True, kw_only=True)
class Table:
    dataset: str
    base_model: str
    normalize: str
    parts: tuple[Part, ...]
    notes: tuple[str, ...]

    def part(self, population: str) -> Part | None:
        return next((p for p in self.parts if p.population == population), None)


def metric_words(metric: str) -> str:
    """ndcg@10 -> NDCG@10, hr@10 -> HR@10."""
    return metric.upper()


def metric_values(rank: np.ndarray, metric: str) -> np.ndarray:
    """Per-case values of "hr@K" or "ndcg@K" from 0-based ranks (inf: a miss); shape as `rank`."""
    name, k = metric.split("@")
    return hits(rank, int(k)) if name == "hr" else gains(rank, int(k))


def evaluated(runs: Iterable[Run]) -> list[Run]:
    """The runs that belong in tables: finished, decoded on test, and a method or the chosen trial of a
    search.

    A chosen trial gives way to a method run with the same settings: that is the same model, trained again.
    """
    found = [r for r in runs if r.predictions and (r.role == "method" or r.chosen)]
    methods = {(r.dataset, r.base_model, r.config_hash) for r in found if r.role == "method"}
    return [r for r in found if r.role == "method" or (r.dataset, r.base_model, r.config_hash) not in methods]


def groups(runs: Iterable[Run]) -> dict[tuple[str, str], list[Run]]:
    """Runs by (data set, base model), both in alphabetical order."""
    by: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda r: (r.dataset, r.base_model)):
        by.setdefault((run.dataset, run.base_model), []).append(run)
    return by


def ordered(runs: Iterable[Run]) -> list[Run]:
    """SFT, MSL, then other methods by name, BEAR last, as the paper's tables have it."""

    def key(run: Run) -> tuple[int, str, str]:
        place = {"sft": 0, "msl": 1, "bear": 3}.get(run.objective, 2)
        return place, run.method.casefold(), run.id

    return sorted(runs, key=key)


def labels(runs: Sequence[Run]) -> dict[str, str]:
    """Run id -> a row label that is distinct among `runs`: the method, and what sets it apart where names
    collide."""
    named: dict[str, str] = {}
    for run in runs:
        same = [r for r in runs if r.method == run.method]
        if len(same) == 1:
            named[run.id] = run.method
            continue
        apart = [k for k in varying(same) if not k.startswith(_HARMLESS)]
        parts = [f"{k.rpartition('.')[2]} {_value(run, k)}" for k in apart]
        named[run.id] = f"{run.method} ({', '.join(parts)})" if parts else run.method
    counts = Counter(named.values())
    return {i: name if counts[name] == 1 else f"{name} [{i}]" for i, name in named.items()}


def varying(runs: Sequence[Run]) -> list[str]:
    """Dotted names of the settings that are not equal in all `runs`, sorted."""
    first, *rest = runs
    return sorted({line.split(": ")[0] for r in rest for line in differences(first.settings, r.settings)})


def _value(run: Run, name: str) -> Any:
    node: Any = run.settings
    for part in name.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return f"{node:.4g}" if isinstance(node, float) else node


def build_tables(runs: Iterable[Run]) -> list[Table]:
    """All main tables, by data set, base model and normaliser (trie first)."""
    tables = []
    for (dataset, base_model), members in groups(evaluated(runs)).items():
        members = ordered(members)
        names = labels(members)
        for normalize in NORMALIZERS:
            here = [r for r in members if normalize in r.predictions]
            if here:
                tables.append(_table(dataset, base_model, normalize, here, names))
    return tables


def _table(dataset: str, base_model: str, normalize: str, runs: list[Run], names: Mapping[str, str]) -> Table:
    notes = _fairness_notes(runs, names)
    parts = []
    for population in POPULATIONS:
        frames = {r.id: _population(r.predictions[normalize], population) for r in runs}
        here = [r for r in runs if len(frames[r.id])]
        if not here:
            continue
        samples = _samples(here, frames)
        if len(samples) > 1:
            notes.append(_refusal(population, samples, frames, names))
        parts.append(_part(population, here, frames, samples, names))
    return Table(
        dataset=dataset, base_model=base_model, normalize=normalize, parts=tuple(parts), notes=tuple(notes)
    )


def _population(frame: pd.DataFrame, population: str) -> pd.DataFrame:
    if population == "all":
        return frame
    warm = frame["warm"].to_numpy(dtype=bool)
    return frame[warm if population == "warm" else ~warm]


def _samples(runs: Sequence[Run], frames: Mapping[str, pd.DataFrame]) -> list[list[Run]]:
    """Runs grouped by identical test cases (data hash, and row, user and target of every case)."""
    by: dict[str, list[Run]] = {}
    for run in runs:
        digest = hashlib.sha256(str(run.data_hash).encode())
        for column in ("row", "user_id", "target"):
            digest.update(frames[run.id][column].to_numpy(dtype=np.int64).tobytes())
        by.setdefault(digest.hexdigest(), []).append(run)
    return list(by.values())


def _refusal(
    population: str, samples: list[list[Run]], frames: Mapping[str, pd.DataFrame], names: Mapping[str, str]
) -> str:
    a, b = samples[0][0], samples[1][0]
    if a.data_hash != b.data_hash:
        why = "their data folders differ (data_hash)"
    else:
        cases = [
            set(frames[r.id][["row", "user_id", "target"]].itertuples(index=False, name=None)) for r in (a, b)
        ]
        shared = len(cases[0] & cases[1])
        (x, y), (m, n) = (names[a.id], names[b.id]), map(len, cases)
        why = f"{x} has {m} cases, {y} has {n}, and {shared} are in both"
        settings = differences(a.settings.get("data", {}), b.settings.get("data", {}), "data")
        if settings:
            why += f" ({'; '.join(settings)})"
    clusters = " | ".join(", ".join(names[r.id] for r in sample) for sample in samples)
    return (
        f"{POPULATION_WORDS[population]}: not every row was tested on the same cases, so rows are "
        f"compared only within these sets: {clusters}. Reason: {why}."
    )


def _part(
    population: str,
    runs: list[Run],
    frames: Mapping[str, pd.DataFrame],
    samples: list[list[Run]],
    names: Mapping[str, str],
) -> Part:
    values = {
        (r.id, m): metric_values(frames[r.id]["rank"].to_numpy(dtype=float), m) for r in runs for m in METRICS
    }
    users = {r.id: frames[r.id]["user_id"].to_numpy() for r in runs}
    means = {key: float(v.mean()) for key, v in values.items()}
    opponent: dict[tuple[str, str], Run] = {}
    places: dict[tuple[str, str], int] = {}
    pairs: dict[tuple[str, str, str], Any] = {}  # one test per unordered pair and metric
    for sample in samples:
        if len(sample) < 2:
            continue
        for metric in METRICS:
            levels = sorted({means[r.id, metric] for r in sample}, reverse=True)
            for run in sample:
                mean = means[run.id, metric]
                if mean > 0 and mean in levels[:2]:
                    places[run.id, metric] = levels.index(mean) + 1
                best = max((r for r in sample if r is not run), key=lambda r: means[r.id, metric])
                opponent[run.id, metric] = best
                pair = _pair(metric, run, best)
                if pair not in pairs:
                    pairs[pair] = paired_test(
                        values[pair[1], metric], values[pair[2], metric], users[pair[1]]
                    )
    corrected = dict(zip(pairs, holm([t.p_value for t in pairs.values()]), strict=True)) if pairs else {}

    def comparison(run: Run, metric: str) -> Comparison | None:
        best = opponent.get((run.id, metric))
        if best is None:
            return None
        pair = _pair(metric, run, best)
        test, sign = pairs[pair], 1.0 if pair[1] == run.id else -1.0
        low, high = sorted((sign * test.low, sign * test.high))
        return Comparison(
            versus=names[best.id],
            difference=sign * test.mean_difference,
            low=low,
            high=high,
            p=test.p_value,
            p_holm=corrected[pair],
        )

    rows = []
    for run in runs:
        cells = {}
        for metric in METRICS:
            mean, low, high = bootstrap_interval(values[run.id, metric], users[run.id])
            cells[metric] = Cell(
                mean=mean,
                low=low,
                high=high,
                place=places.get((run.id, metric), 0),
                test=comparison(run, metric),
            )
        n, distinct = len(users[run.id]), len(np.unique(users[run.id]))
        rows.append(Row(label=names[run.id], run=run, n=n, users=distinct, cells=cells))
    return Part(population=population, rows=tuple(rows), tests=len(pairs))


def _pair(metric: str, a: Run, b: Run) -> tuple[str, str, str]:
    first, second = sorted((a.id, b.id))
    return metric, first, second


def _fairness_notes(runs: list[Run], names: Mapping[str, str]) -> list[str]:
    """Settings other than the objective that differ between rows: a reader must know before comparing
    them."""
    notes = []
    for name in varying(runs) if len(runs) > 1 else []:
        if not name.startswith(("objective.", *_HARMLESS)):
            values = ", ".join(f"{names[r.id]} {_value(r, name)}" for r in runs)
            notes.append(f"The rows also differ in {name}: {values}.")
    narrow = [r for r in runs if int(r.settings.get("decoding", {}).get("beam_width", 10)) < 10]
    if narrow:
        widths = ", ".join(f"{names[r.id]} {r.settings['decoding']['beam_width']}" for r in narrow)
        notes.append(f"Beam width below 10 ({widths}): fewer titles are returned than @10 looks at.")
    return notes
