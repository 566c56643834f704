"""One row of the paper's tables: the runs of a method, its numbers for every decoding, and rows compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from scipy.stats import binomtest

from bearray.report.cells import Cell, Row, cell_over_seeds, metric_values
from bearray.report.records import Run
from bearray.report.rows import evaluated, replicates, same_cases
from bearray.stats import PairedTest, paired_test

METRICS = ("ndcg@5", "ndcg@10", "hr@5", "hr@10")
"""Columns of Tables 2, 3 and 4."""
MAIN = "trie"
DECODINGS = ("trie", "full", "trie_lp1", "full_lp1")
"""Versions of a table; length penalty 0 first."""


NOT_RUN = "not run"
IN_TRAINING = "in training"
NOT_TESTED = "trained, not tested"
OTHERWISE = "not decoded so"
"""Words for cells without a number; a failed one says why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """A row: each test case's value is its mean over the seeds."""

    runs: tuple[Run, ...]
    """One a seed."""
    users: np.ndarray
    """[U] whose test case it is."""
    values: Mapping[str, np.ndarray]
    """By metric: [U]."""
    cells: Mapping[str, Cell]
    """By metric: mean, 95% bootstrap interval over users, standard deviation of the seeds' means."""
    cases: str
    """Equal for rows that were tested on the same cases."""

    @property
    def n(self) -> int:
        return len(self.users)

    @property
    def seeds(self) -> tuple[int | None, ...]:
        return tuple(run.seed for run in self.runs)

    def over_users(self, metric: str) -> float:
        """Mean over users of each one's mean, as in `compared`; a cell's mean is over test cases."""
        _, places = np.unique(self.users, return_inverse=True)
        means: np.ndarray = np.bincount(places, self.values[metric]) / np.bincount(places)
        return float(means.mean())

    def row(self, label: str) -> Row:
        """The same as a row of a report's table."""
        users = len(np.unique(self.users))
        return Row(label=label, runs=self.runs, n=self.n, users=users, cells=self.cells)


@dataclass(frozen=True, kw_only=True, eq=False)
class Method:
    """The runs of one row: one method of one part."""

    name: str
    """As `published.json` calls ours: an objective's name, d3, or a baseline's with an underscore."""
    runs: tuple[Run, ...] = ()
    """All of them, trials included."""

    @cached_property
    def tested(self) -> tuple[Run, ...]:
        """One a seed, alike but for it: of several groups that with the most seeds, then the newest."""
        groups = replicates(evaluated(r for r in self.runs if r.status == "finished"))

        if not groups:
            return ()

        def rank(group: list[Run]) -> tuple[int, str]:
            return len(group), max(str(run.created or "") for run in group)

        best = max(groups, key=rank)
        return tuple(best)

    @property
    def left_out(self) -> int:
        """Tested runs of other settings, which the row does not hold."""
        return len(evaluated(r for r in self.runs if r.status == "finished")) - len(self.tested)

    @property
    def state(self) -> str:
        """Why there is no number, where there is none."""
        if not self.runs:
            return NOT_RUN
        ended = [r for r in self.runs if r.status == "finished" and (r.role == "method" or r.chosen)]
        if ended:
            return NOT_TESTED
        if any(r.status not in ("failed", "finished", "stopped") for r in self.runs):
            return IN_TRAINING
        failed = [r for r in self.runs if r.status == "failed"]
        if len(failed) < len(self.runs):  # between the trials of a search
            return IN_TRAINING
        return f"failed: {failed[0].reason}"

    @property
    def troubles(self) -> list[str]:
        """What became of seeds that are not in the row, in sentences without full stops."""
        have = {run.seed for run in self.tested}
        if not have:
            return []
        words = {"failed": "failed: ", "unfinished": f"{IN_TRAINING}, "}
        lost = [r for r in self.runs if r.role == "method" and r.seed not in have and not r.predictions]
        return [f"seed {r.seed} {words.get(r.status, '')}{r.reason}" for r in lost]

    @cached_property
    def scores(self) -> Mapping[str, Scores]:
        """The row by decoding; empty where no run of it was tested."""
        return {d: found for d in DECODINGS if (found := _score(self.tested, d)) is not None}

    def lacks(self, decoding: str) -> str:
        """Why there is no number in a version."""
        return OTHERWISE if self.scores else self.state

    @property
    def trials(self) -> int:
        """Finished or stopped trials of its search."""
        return sum(r.role == "trial" and r.status in ("finished", "stopped") for r in self.runs)


def _score(runs: Sequence[Run], decoding: str) -> Scores | None:
    """None where no run was decoded so."""
    found = [(run, frame) for run in runs if (frame := run.tested(decoding)) is not None]
    if not found:
        return None
    own, frames = [run for run, _ in found], [frame for _, frame in found]
    users = frames[0]["user_id"].to_numpy()
    values, cells = {}, {}
    for metric in METRICS:
        by_seed = [metric_values(frame["rank"].to_numpy(dtype=float), metric) for frame in frames]
        values[metric] = np.mean(by_seed, axis=0)
        cells[metric] = cell_over_seeds(by_seed, users)
    return Scores(
        runs=tuple(own), users=users, values=values, cells=cells, cases=same_cases(own[0], frames[0])
    )


def compared(a: Scores | None, b: Scores | None, metric: str) -> PairedTest | None:
    """a minus b, paired over users; None where one is missing or they were not tested on the same cases."""
    if a is None or b is None or a.cases != b.cases:
        return None
    return paired_test(a.values[metric], b.values[metric], a.users)


@cache
def binomial_interval(share: float, n: int) -> tuple[float, float]:
    """The paper's own sampling error: the 95% Wilson interval of a hit ratio that is k of n test cases."""
    found = binomtest(round(share * n), n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)
