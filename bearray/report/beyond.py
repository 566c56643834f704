"""Beyond accuracy: which titles the methods recommend, how popular, how alike, and who gets seen.

From the lists in the runs' predictions; most measures need the data set, too (`background`). The formulas
and their sources are in `bearray.beyond_accuracy`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bearray import beyond_accuracy as measures
from bearray.errors import BearrayError
from bearray.report.background import Background, Backgrounds, lists_of
from bearray.report.cells import Row, Table
from bearray.report.records import Run
from bearray.stats import bootstrap_ratios

K = 10
"""Places of a list that count."""
TARGETS = "what users chose next"
"""The row of the test cases' own targets, a yardstick: no method."""
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Measure:
    """A number, with its 95% interval over users where it is a mean over lists."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class BeyondRow:
    """One method, a mean over its seeds."""

    label: str
    seeds: int
    values: Mapping[str, Measure]
    """By name of `LIST_MEASURES` and `SPREAD_MEASURES`; those that could not be computed are missing."""


@dataclass(frozen=True, kw_only=True)
class BeyondTable:
    """The methods of one data set, base model and decoding."""

    dataset: str
    base_model: str
    normalize: str
    rows: tuple[BeyondRow, ...]
    titles: int | None
    """Titles of the catalogue; None where the data set is not there."""
    notes: tuple[str, ...]


LIST_MEASURES = ("arp", "lift", "long_tail", "novelty", "diversity")
"""Means over lists: average recommendation popularity, its lift over histories, share of long-tail titles,
self-information, distance within a list."""
SPREAD_MEASURES = (
    "titles", "coverage", "entropy", "gini", "gini_by_place", "ratio_head", "ratio_mid", "ratio_tail",
)  # fmt: skip
"""Of all lists together: distinct titles, share of the catalogue, entropy, Gini by times shown and by place,
exposure of head, mid and tail over their share of the training targets."""


def build_beyond(tables: Sequence[Table], backgrounds: Backgrounds) -> list[BeyondTable]:
    """One table for each of the main tables in which a run has recorded its lists."""
    return [found for table in tables if (found := _table(table, backgrounds)) is not None]


def _table(table: Table, backgrounds: Backgrounds) -> BeyondTable | None:
    part = table.part("all")
    listed = [row for row in part.rows if _has_lists(row, table.normalize)] if part else []
    if not listed:
        return None
    rows: list[BeyondRow] = []
    reasons: dict[str, list[str]] = {}
    yardstick: tuple[Background, Run] | None = None
    for row in listed:
        try:
            background = backgrounds.find(row.run)
            values = _values(row.runs, table.normalize, background)
            yardstick = yardstick or (background, row.run)
        except BearrayError as error:
            reasons.setdefault(str(error), []).append(row.label)
            values = _without_data(row.runs, table.normalize)
        rows.append(BeyondRow(label=row.label, seeds=row.seeds, values=values))
    if yardstick is not None:
        background, run = yardstick
        values = _of_targets(run, table.normalize, background)
        rows.append(BeyondRow(label=TARGETS, seeds=1, values=values))
    notes = []
    for reason, labels in reasons.items():
        who = "" if len(labels) == len(listed) else f" for {', '.join(labels)}"
        notes.append(f"Measures that need the data set are left out{who}: {reason}.")
    notes += _short_lists(listed, table.normalize)
    return BeyondTable(
        dataset=table.dataset,
        base_model=table.base_model,
        normalize=table.normalize,
        rows=tuple(rows),
        titles=None if yardstick is None else len(yardstick[0].titles),
        notes=tuple(notes),
    )


def _has_lists(row: Row, decoding: str) -> bool:
    return all((lists_of(run.predictions[decoding], 1) >= 0).any() for run in row.runs)


Column = tuple[Floats, Floats]
"""Numerator and denominator of each test case: a measure is the quotient of their sums."""


def _values(runs: Sequence[Run], decoding: str, background: Background) -> dict[str, Measure]:
    """All measures of one method; several seeds by their mean, test case by test case where there is one."""
    frame = runs[0].predictions[decoding]
    each = [background.title_ids(lists_of(run.predictions[decoding], K)) for run in runs]
    histories = background.histories(runs[0], frame)
    columns = [_columns(lists, histories, background) for lists in each]
    mean = {
        name: (
            np.mean([c[name][0] for c in columns], axis=0),
            np.mean([c[name][1] for c in columns], axis=0),
        )
        for name in columns[0]
    }
    spread: list[dict[str, float]] = []
    for lists in each:
        shown = measures.exposure(lists, len(background.titles))
        by_place = measures.exposure(lists, len(background.titles), by_place=True)
        spread.append(
            {
                "titles": measures.aggregate_diversity(shown),
                "coverage": measures.catalogue_coverage(shown),
                "entropy": measures.shannon_entropy(shown),
                "gini": measures.gini(shown),
                "gini_by_place": measures.gini(by_place),
            }
        )
    return _with_intervals(mean, frame["user_id"].to_numpy(), background) | _means(spread)


def _of_targets(run: Run, decoding: str, background: Background) -> dict[str, Measure]:
    """The measures of lists that hold the target and nothing else; how many titles such short lists reach
    says nothing beside lists of ten."""
    frame = run.predictions[decoding]
    lists = background.title_ids(frame["target"].to_numpy())[:, None]
    columns = _columns(lists, background.histories(run, frame), background)
    return _with_intervals(columns, frame["user_id"].to_numpy(), background)


def _columns(lists: Ints, histories: Sequence[Ints], background: Background) -> dict[str, Column]:
    """What is a ratio of sums over test cases, and so has an interval."""
    phi, groups = background.popularity, background.groups
    popular = measures.list_means(lists, phi)
    to_groups, to_all = measures.group_exposures(lists, groups)
    return {
        "arp": _mean_of(popular),
        "lift": _ratio_of(popular, measures.list_means(_padded(histories), phi)),
        "long_tail": _mean_of(measures.long_tail_shares(lists, groups)),
        "novelty": _mean_of(measures.list_means(lists, measures.self_information(phi))),
        "diversity": _mean_of(measures.intra_list_distance(lists, background.words)),
        **{f"ratio_{name}": (to_groups[:, g], to_all) for g, name in enumerate(measures.GROUPS)},
    }


def _with_intervals(columns: Mapping[str, Column], users: Ints, background: Background) -> dict[str, Measure]:
    numerators, denominators = (np.stack(part, axis=1) for part in zip(*columns.values(), strict=True))
    found = dict(zip(columns, bootstrap_ratios(numerators, denominators, users), strict=True))
    found["lift"] = found["lift"] - 1
    deserved = measures.target_shares(background.popularity, background.groups)
    for name, share in zip(measures.GROUPS, deserved, strict=True):
        found[f"ratio_{name}"] = found[f"ratio_{name}"] / share if share else np.full(3, np.nan)
    return {name: Measure(*map(float, three)) for name, three in found.items() if np.isfinite(three).all()}


def _means(each: Sequence[Mapping[str, float]]) -> dict[str, Measure]:
    """Of each seed's own lists, not of all seeds' mixed; how sure such a number is, no resampling of users
    tells: fewer users reach fewer titles."""
    return {name: Measure(float(np.mean([values[name] for values in each]))) for name in each[0]}


def _mean_of(values: Floats) -> Column:
    there = np.isfinite(values)
    return np.where(there, values, 0.0), there.astype(np.float64)


def _ratio_of(above: Floats, below: Floats) -> Column:
    there = np.isfinite(above) & np.isfinite(below)
    return np.where(there, above, 0.0), np.where(there, below, 0.0)


def _padded(histories: Sequence[Ints]) -> Ints:
    padded = np.full((len(histories), max(map(len, histories))), -1, dtype=np.int64)
    for row, history in enumerate(histories):
        padded[row, : len(history)] = history
    return padded


def _without_data(runs: Sequence[Run], decoding: str) -> dict[str, Measure]:
    """An item stands for all that share its title, so items can be counted in place of titles."""
    spread: list[dict[str, float]] = []
    for run in runs:
        lists = lists_of(run.predictions[decoding], K)
        shown = np.unique(lists[lists >= 0], return_counts=True)[1]
        spread.append(
            {
                "titles": measures.aggregate_diversity(shown),
                "entropy": measures.shannon_entropy(shown),
            }
        )
    return _means(spread)


def _short_lists(rows: Sequence[Row], decoding: str) -> list[str]:
    short = {
        row.label: share
        for row in rows
        if (share := float(np.mean([_share_short(run, decoding) for run in row.runs]))) > 0
    }
    if not short:
        return []
    told = ", ".join(f"{label} {share:.1%}" for label, share in short.items())
    return [f"Lists with fewer than {K} titles: {told}. Means are over the titles that are there."]


def _share_short(run: Run, decoding: str) -> float:
    return float((lists_of(run.predictions[decoding], K) < 0).any(axis=1).mean())
