"""The main table: methods against metrics, with intervals and paired tests, as measured.

One table belongs to one data set, base model and decoding, since numbers from different ones are not
comparable, and has three parts: all test cases, those with a warm target (seen in training) and those with
a cold one. Everything is computed from the ranks in the run's predictions. Runs are compared only where
they were tested on the same cases; where they were not, the table says so and draws no comparison.

Runs that differ in nothing but their seed are one row. A test case's value is then its mean over the seeds;
mean, interval (bootstrap over users) and paired tests (over users) are those of these values, so they are
about these seeds' average and speak for other users. How much another seed changes is told apart, by the
standard deviation of the seeds' means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from bearray.method_names import method_name
from bearray.report.cells import (
    METRICS,
    POPULATION_WORDS,
    POPULATIONS,
    Part,
    Row,
    Table,
    cell_over_seeds,
    metric_values,
)
from bearray.report.compare import Measured, compare
from bearray.report.records import DECODINGS, Run
from bearray.report.rows import (
    HARMLESS,
    SEEDS,
    evaluated,
    groups,
    labels,
    ordered,
    replicates,
    same_cases,
    value_of,
    varying,
    why_other_cases,
)

Group = tuple[Run, ...]
"""The runs of one row, one a seed."""


def build_tables(runs: Iterable[Run]) -> list[Table]:
    """All main tables, by data set, base model and decoding (trie, full, exact)."""
    tables = []
    for (dataset, base_model), members in groups(evaluated(runs)).items():
        rows = replicates(ordered(members))
        names = labels([group[0] for group in rows])
        for decoding in DECODINGS:
            here = [tuple(r for r in group if decoding in r.predictions) for group in rows]
            kept = {names[group[0].id]: found for group, found in zip(rows, here, strict=True) if found}
            if kept:
                tables.append(_table(dataset, base_model, decoding, kept))
    return tables


def _table(dataset: str, base_model: str, decoding: str, rows: Mapping[str, Group]) -> Table:
    notes = _fairness_notes(rows, decoding)
    parts = []
    for population in POPULATIONS:
        frames = {
            run.id: _population(run.predictions[decoding], population)
            for group in rows.values()
            for run in group
        }
        here = {label: group for label, group in rows.items() if len(frames[group[0].id])}
        if not here:
            continue
        samples = _samples(here, frames)
        if len(samples) > 1:
            notes.append(_refusal(population, samples, here, frames))
        parts.append(_part(population, here, frames, samples))
    return Table(
        dataset=dataset, base_model=base_model, normalize=decoding, parts=tuple(parts), notes=tuple(notes)
    )


def _population(frame: pd.DataFrame, population: str) -> pd.DataFrame:
    if population == "all":
        return frame
    warm = frame["warm"].to_numpy(dtype=bool)
    return frame[warm if population == "warm" else ~warm]


def _samples(rows: Mapping[str, Group], frames: Mapping[str, pd.DataFrame]) -> list[list[str]]:
    """Labels grouped by identical test cases."""
    by: dict[str, list[str]] = {}
    for label, (run, *_) in rows.items():
        by.setdefault(same_cases(run, frames[run.id]), []).append(label)
    return list(by.values())


def _refusal(
    population: str,
    samples: list[list[str]],
    rows: Mapping[str, Group],
    frames: Mapping[str, pd.DataFrame],
) -> str:
    (x, *_), (y, *_) = samples[:2]
    a, b = rows[x][0], rows[y][0]
    why = why_other_cases(a, b, frames[a.id], frames[b.id], (x, y))
    clusters = " | ".join(", ".join(sample) for sample in samples)
    return (
        f"{POPULATION_WORDS[population]}: not every row was tested on the same cases, so rows are "
        f"compared only within these sets: {clusters}. Reason: {why}."
    )


def _part(
    population: str,
    rows: Mapping[str, Group],
    frames: Mapping[str, pd.DataFrame],
    samples: list[list[str]],
) -> Part:
    by_seed = {
        (label, metric): [metric_values(frames[r.id]["rank"].to_numpy(dtype=float), metric) for r in group]
        for label, group in rows.items()
        for metric in METRICS
    }
    measured = {
        label: Measured(
            id=group[0].id,
            label=label,
            users=frames[group[0].id]["user_id"].to_numpy(),
            values={metric: np.mean(by_seed[label, metric], axis=0) for metric in METRICS},
        )
        for label, group in rows.items()
    }
    compared = compare([[measured[label] for label in sample] for sample in samples])
    found = []
    for label, group in rows.items():
        row = measured[label]
        cells = {
            metric: cell_over_seeds(
                by_seed[label, metric],
                row.users,
                place=compared.places.get((row.id, metric), 0),
                test=compared.tests.get((row.id, metric)),
            )
            for metric in METRICS
        }
        users = len(np.unique(row.users))
        found.append(Row(label=label, runs=group, n=len(row.users), users=users, cells=cells))
    return Part(population=population, rows=tuple(found), tests=compared.count)


def _fairness_notes(rows: Mapping[str, Group], decoding: str) -> list[str]:
    """What differs between rows beside the objective: a reader must know before comparing them."""
    runs = [group[0] for group in rows.values()]
    notes = []
    harmless = ("objective.", *SEEDS, *(h for h in HARMLESS if h != "decoding.normalize"))
    if decoding != "exact":
        harmless += ("decoding.normalize",)
    for name in varying(runs) if len(runs) > 1 else []:
        if not name.startswith(harmless):
            values = ", ".join(f"{label} {value_of(group[0], name)}" for label, group in rows.items())
            notes.append(f"The rows also differ in {name}: {values}.")
    notes += _start_notes(rows) + _seed_notes(rows)
    if decoding == "exact":
        notes += _proof_notes(rows)
    narrow = {
        label: width
        for label, group in rows.items()
        if (width := int(group[0].settings.get("decoding", {}).get("beam_width", 10))) < 10
    }
    if narrow:
        widths = ", ".join(f"{label} {width}" for label, width in narrow.items())
        notes.append(f"Beam width below 10 ({widths}): fewer titles are returned than @10 looks at.")
    return notes


def _start_notes(rows: Mapping[str, Group]) -> list[str]:
    starts: dict[str, list[str]] = {}
    for label, (run, *_) in rows.items():
        own = value_of(run, "train.init_adapter")
        if run.started_from:
            own = f"the {method_name(run.started_from.rpartition('-')[0].upper())} run's adapter"
        if own:
            starts.setdefault(str(own), []).append(label)
    return [
        f"Trained from {start} and not from a new one: {', '.join(started)}. What that took is not in their "
        "times."
        for start, started in starts.items()
    ]


def _seed_notes(rows: Mapping[str, Group]) -> list[str]:
    seeds = {label: [run.seed for run in group] for label, group in rows.items()}
    if len({tuple(s) for s in seeds.values()}) < 2:
        return []
    listed = "; ".join(f"{label} {', '.join(map(str, s))}" for label, s in seeds.items())
    return [f"The rows have other seeds: {listed}."]


def _proof_notes(rows: Mapping[str, Group]) -> list[str]:
    shares = {
        label: min(p for run in group if (p := run.proven()) is not None)
        for label, group in rows.items()
        if any(run.proven() is not None for run in group)
    }
    lacking = [f"{label} {share:.1%}" for label, share in shares.items() if share < 1]
    if not lacking:
        return []
    return [
        "The node budget ended exact search before some lists were proven to be the true best ones; proven: "
        f"{', '.join(lacking)}."
    ]
