"""Runs against one another: paired differences over users, where they differ, and for whom.

Everything is computed from the predictions in the run folders. The first run is the one that the others are
held against in groups of test cases and in examples; all pairs are tested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bearray.errors import BearrayError
from bearray.report.background import Background, Backgrounds
from bearray.report.breakdown import Dimension, by_data, by_trie, warm_or_cold
from bearray.report.cells import METRICS, Comparison, metric_values
from bearray.report.comparable import check_comparable, tested
from bearray.report.examples import Example, pick
from bearray.report.records import Run
from bearray.report.rows import labels
from bearray.stats import bootstrap_interval, holm, paired_test

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One run."""

    label: str
    run: Run
    means: Mapping[str, tuple[float, float, float]]
    """By metric: mean over test cases, with its 95% interval over users."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """`label` minus `comparison.versus`."""

    metric: str
    label: str
    comparison: Comparison


@dataclass(frozen=True, kw_only=True)
class GroupRow:
    """A group of test cases."""

    dimension: str
    group: str
    n: int
    users: int
    means: tuple[float, ...]
    """Of each run, in their order."""
    comparisons: tuple[Comparison, ...]
    """Of each run but the first, against the first."""


@dataclass(frozen=True, kw_only=True)
class Versus:
    """All that is told about some runs."""

    dataset: str
    decoding: str
    metric: str
    """Of groups and examples."""
    n: int
    users: int
    contenders: tuple[Contender, ...]
    differences: tuple[Difference, ...]
    groups: tuple[GroupRow, ...]
    examples: Mapping[str, tuple[Example, ...]]
    """By the label of each run but the first: largest wins and losses against the first."""
    cases: pd.DataFrame
    """A row a test case: row, user_id, target, warm."""
    ranks: Mapping[str, Floats]
    """By label: [U] 0-based, infinity for a miss."""
    notes: tuple[str, ...]


def compare_runs(
    runs: Sequence[Run],
    *,
    metric: str = "ndcg@10",
    decoding: str | None = None,
    examples: int = 3,
    backgrounds: Backgrounds | None = None,
    base_model: str | None = None,
) -> Versus:
    """Compare runs that were tested on the same cases.

    Args:
        runs: two or more, with different ids; the others are held against the first.
        metric: hr@K or ndcg@K, of groups and examples; the differences have `METRICS`, too.
        decoding: one of `DECODINGS`; None: that of the first run that is no baseline.
        examples: wins, and losses, shown of each run against the first.
        backgrounds: where data sets are found.
        base_model: folder of the base model whose tokens part the test cases (default: a run's own).

    Raises:
        ConfigError, DataError: they cannot be compared, as `check_comparable`.
    """
    names = labels(runs)
    decoding, notes = check_comparable(runs, names, metric, decoding)
    frames = [tested(run, decoding) for run in runs]
    users = frames[0]["user_id"].to_numpy()
    values = {
        (run.id, m): metric_values(frame["rank"].to_numpy(dtype=float), m)
        for run, frame in zip(runs, frames, strict=True)
        for m in dict.fromkeys([metric, *METRICS])
    }
    dimensions = [warm_or_cold(frames[0])]
    background, histories = None, None
    known = _data_set(runs, frames[0], backgrounds or Backgrounds())
    if isinstance(known, str):
        notes.append(
            "Without the data set there are no titles, and no groups by history, title, popularity and path: "
            f"{known}."
        )
    else:
        background, histories = known
        dimensions += by_data(background, histories, frames[0])
        paths = _paths(runs, frames[0], background, base_model)
        if isinstance(paths, str):
            notes.append(f"Without the base model's tokens there are no groups by the title's path: {paths}.")
        else:
            dimensions += paths
    first, *others = runs
    return Versus(
        dataset=first.dataset,
        decoding=decoding,
        metric=metric,
        n=len(users),
        users=len(np.unique(users)),
        contenders=tuple(
            Contender(
                label=names[run.id],
                run=run,
                means={m: bootstrap_interval(values[run.id, m], users) for r, m in values if r == run.id},
            )
            for run in runs
        ),
        differences=_differences(runs, names, values, users),
        groups=_groups(dimensions, [values[run.id, metric] for run in runs], names[first.id], users),
        examples={
            names[run.id]: pick(
                frames[0],
                frame,
                values[run.id, metric] - values[first.id, metric],
                examples,
                background,
                histories,
            )
            for run, frame in zip(others, frames[1:], strict=True)
        },
        cases=frames[0][["row", "user_id", "target", "warm"]],
        ranks={
            names[run.id]: frame["rank"].to_numpy(dtype=float)
            for run, frame in zip(runs, frames, strict=True)
        },
        notes=tuple(notes),
    )


def _differences(
    runs: Sequence[Run], names: Mapping[str, str], values: Mapping[tuple[str, str], Floats], users: Floats
) -> tuple[Difference, ...]:
    """All pairs and metrics, corrected together."""
    keys = [(m, a, b) for m in dict.fromkeys(m for _, m in values) for a, b in combinations(runs, 2)]
    tests = [paired_test(values[b.id, m], values[a.id, m], users) for m, a, b in keys]
    corrected = holm([test.p_value for test in tests])
    return tuple(
        Difference(
            metric=m,
            label=names[b.id],
            comparison=Comparison(
                versus=names[a.id],
                difference=test.mean_difference,
                low=test.low,
                high=test.high,
                p=test.p_value,
                p_holm=p,
            ),
        )
        for (m, a, b), test, p in zip(keys, tests, corrected, strict=True)
    )


def _groups(
    dimensions: Sequence[Dimension], values: Sequence[Floats], versus: str, users: Floats
) -> tuple[GroupRow, ...]:
    """Every group, with the comparisons of all groups corrected together."""
    first, *others = values
    cut = [(d.name, label, mask) for d in dimensions for label, mask in d.groups]
    tests = [[paired_test(v[mask], first[mask], users[mask]) for v in others] for _, _, mask in cut]
    corrected = iter(holm([test.p_value for row in tests for test in row]))
    return tuple(
        GroupRow(
            dimension=name,
            group=label,
            n=int(mask.sum()),
            users=len(np.unique(users[mask])),
            means=tuple(float(v[mask].mean()) for v in values),
            comparisons=tuple(
                Comparison(
                    versus=versus,
                    difference=test.mean_difference,
                    low=test.low,
                    high=test.high,
                    p=test.p_value,
                    p_holm=next(corrected),
                )
                for test in row
            ),
        )
        for (name, label, mask), row in zip(cut, tests, strict=True)
    )


def _data_set(
    runs: Sequence[Run], frame: pd.DataFrame, backgrounds: Backgrounds
) -> tuple[Background, list[Ints]] | str:
    """The data set and the histories of the test cases, from the first run that leads to them; else why
    not."""
    reasons = []
    for run in runs:
        try:
            background = backgrounds.find(run)
            return background, background.histories(run, frame)
        except BearrayError as error:
            reasons.append(str(error))
    return reasons[0]


def _paths(
    runs: Sequence[Run], frame: pd.DataFrame, background: Background, base_model: str | None
) -> list[Dimension] | str:
    """Groups by the target's path in the trie, from the first run whose tokenizer is here; else why not."""
    reasons = []
    for run in runs:
        try:
            return by_trie(background, run, base_model, frame)
        except BearrayError as error:
            reasons.append(str(error))
    return reasons[0]
