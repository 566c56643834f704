"""What a table of results holds: cells, rows, parts; and the words for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bearray.metrics import gains, hits
from bearray.report.records import Run
from bearray.stats import bootstrap_interval

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
    "exact": "exact search (the true most probable titles)",
    "trie_lp1": "softmax over the valid next tokens (trie) and length penalty 1",
    "full_lp1": "softmax over the vocabulary (full) and length penalty 1",
}
"""By decoding (`DECODINGS`)."""
ALPHA = 0.05
"""Level of the tests, after Holm's correction."""


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
    """One metric of one row: mean over test cases (each its mean over the seeds) with its 95% interval over
    users."""

    mean: float
    low: float
    high: float
    place: int
    """1 best, 2 second, 0 neither (or nothing to compare with); equal means share a place."""
    test: Comparison | None
    seed_sd: float | None = None
    """Standard deviation of the seeds' means (one less than their number in the divisor); None with one
    seed."""


@dataclass(frozen=True, kw_only=True)
class Row:
    label: str
    runs: tuple[Run, ...]
    """One a seed."""
    n: int
    users: int
    cells: Mapping[str, Cell]

    @property
    def run(self) -> Run:
        """The run with the first seed; settings other than the seed are those of all."""
        return self.runs[0]

    @property
    def seeds(self) -> int:
        """Number of runs that the row is the mean of."""
        return len(self.runs)


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
    """The decoding (`DECODINGS`)."""
    parts: tuple[Part, ...]
    notes: tuple[str, ...]

    @property
    def seeded(self) -> bool:
        """Whether a row is the mean of several seeds."""
        return any(row.seeds > 1 for part in self.parts for row in part.rows)

    def part(self, population: str) -> Part | None:
        return next((p for p in self.parts if p.population == population), None)


def cell_over_seeds(
    by_seed: Sequence[np.ndarray], users: np.ndarray, *, place: int = 0, test: Comparison | None = None
) -> Cell:
    """A metric's cell: its mean over test cases, each of them its mean over the seeds.

    Args:
        by_seed: of each seed, [U] values of the same test cases. users: [U] whose test case it is.
    """
    mean, low, high = bootstrap_interval(np.mean(by_seed, axis=0), users)
    means = [float(values.mean()) for values in by_seed]
    sd = float(np.std(means, ddof=1)) if len(means) > 1 else None
    return Cell(mean=mean, low=low, high=high, place=place, test=test, seed_sd=sd)


def metric_words(metric: str) -> str:
    """ndcg@10 -> NDCG@10, hr@10 -> HR@10."""
    return metric.upper()


def metric_values(rank: np.ndarray, metric: str) -> np.ndarray:
    """Per-case values of "hr@K" or "ndcg@K" from 0-based ranks (inf: a miss); shape as `rank`."""
    name, k = metric.split("@")
    return hits(rank, int(k)) if name == "hr" else gains(rank, int(k))
