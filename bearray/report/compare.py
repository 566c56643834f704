"""Paired comparisons within one part of a table: each row against the best other one, corrected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bearray.report.cells import METRICS, Comparison
from bearray.stats import PairedTest, holm, paired_test


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """A row's values before it is compared."""

    id: str
    label: str
    users: np.ndarray
    """[U] whose test case it is."""
    values: Mapping[str, np.ndarray]
    """By metric: [U], the mean over the row's seeds of each test case."""

    def mean(self, metric: str) -> float:
        return float(self.values[metric].mean())


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What the comparisons of a part came to, by row id and metric."""

    places: Mapping[tuple[str, str], int]
    """1 for the best and 2 for the second; equal means share a place."""
    tests: Mapping[tuple[str, str], Comparison]
    count: int
    """Distinct comparisons that Holm's correction counts."""


def compare(samples: Sequence[Sequence[Measured]]) -> Compared:
    """Compare rows, only with those that were tested on the same cases.

    Args:
        samples: rows by their test cases; those of one sample have the same.
    """
    opponent: dict[tuple[str, str], Measured] = {}
    places: dict[tuple[str, str], int] = {}
    pairs: dict[tuple[str, str, str], PairedTest] = {}  # one test per unordered pair and metric
    for sample in samples:
        if len(sample) < 2:
            continue
        for metric in METRICS:
            levels = sorted({row.mean(metric) for row in sample}, reverse=True)
            for row in sample:
                mean = row.mean(metric)
                if mean > 0 and mean in levels[:2]:
                    places[row.id, metric] = levels.index(mean) + 1
                best = max((r for r in sample if r is not row), key=lambda r: r.mean(metric))
                opponent[row.id, metric] = best
                a, b = sorted((row, best), key=lambda r: r.id)
                if (metric, a.id, b.id) not in pairs:
                    pairs[metric, a.id, b.id] = paired_test(a.values[metric], b.values[metric], a.users)
    corrected = dict(zip(pairs, holm([t.p_value for t in pairs.values()]), strict=True)) if pairs else {}
    tests = {}
    for (row_id, metric), best in opponent.items():
        first, second = sorted((row_id, best.id))
        test, sign = pairs[metric, first, second], 1.0 if first == row_id else -1.0
        low, high = sorted((sign * test.low, sign * test.high))
        tests[row_id, metric] = Comparison(
            versus=best.label,
            difference=sign * test.mean_difference,
            low=low,
            high=high,
            p=test.p_value,
            p_holm=corrected[metric, first, second],
        )
    return Compared(places=places, tests=tests, count=len(pairs))
