"""From raw round times to medians, intervals and ratios. Every number is computed from what a file holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from scipy.stats import binom

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A median and its interval over rounds."""

    value: float
    low: float
    high: float
    coverage: float
    """The interval's own coverage: at least 0.95 from 6 rounds on, less where even the range has less."""

    def times(self, factor: float) -> Interval:
        """The interval of a multiple (factor above 0)."""
        return Interval(self.value * factor, self.low * factor, self.high * factor, self.coverage)


def median_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The median with the narrowest symmetric order-statistic interval of at least the given coverage.

    From the j-th smallest to the j-th largest of n values, the interval covers the true median with
    probability 1 - 2 P(Bin(n, 1/2) < j), whatever the distribution of round times is. Where even the whole
    range covers less (n below 6 at 95%), it is the range, and `coverage` says how much that is.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    ordered = sorted(values)
    if not ordered or not all(math.isfinite(v) for v in ordered):
        raise ValueError(f"a median needs finite values; got {list(values)!r}")
    n, place = len(ordered), 1
    while 2 * (place + 1) <= n and 1 - 2 * float(binom.cdf(place, n, 0.5)) >= level:
        place += 1
    coverage = 1 - 2 * float(binom.cdf(place - 1, n, 0.5)) if n > 1 else 0.0
    return Interval(float(median(ordered)), ordered[place - 1], ordered[-place], coverage)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contender. A piece of work is an optimiser step, or the decoding of a turn's users."""

    label: str
    seconds: Interval
    """Per step, or per user."""
    ratio: Interval | None
    """Of this contender's time to that of the baseline in the same round; None without a baseline."""
    cpu_ratio: Interval | None
    """The same of CPU time, which other work on the machine disturbs less (not what a GPU user pays)."""
    speed: Interval
    """Training: tokens of prompts and targets a second, over all workers. Decoding: users a second."""
    joules: Interval | None
    """Per step, or per user; None where energy was not measured."""
    epoch_seconds: Interval | None
    """Training: seconds per step times the steps of an epoch."""
    forward: float
    """Forward passes of a worker, per step or per turn."""
    backward: float
    fed: float
    """Tokens fed on all workers, per step or per user, padding included."""
    padding: float
    """Of them."""
    peak_bytes: int | None
    peak_total_bytes: int | None


def training_rows(part: Mapping[str, Any], baseline: str = "sft") -> list[Row]:
    """The objectives of the file's "training" part, in its order; [] before the first round has ended."""
    return _rows(part, baseline, per_piece=True)


def decoding_rows(part: Mapping[str, Any], baseline: str = "beam") -> list[Row]:
    """The decoders of the file's "decoding" part."""
    return _rows(part, baseline, per_piece=False)


def _rows(part: Mapping[str, Any], baseline: str, *, per_piece: bool) -> list[Row]:
    rounds: Sequence[Mapping[str, Any]] = part["rounds"]
    if not rounds:
        return []
    labels = list(part["contenders"])
    found = []
    for label in labels:
        turns = [r["turns"][label] for r in rounds]
        # What a turn's time is divided by to be that of a step, or of a user.
        units = [len(t["seconds"]) if per_piece else r["size"] for t, r in zip(turns, rounds, strict=True)]
        wall = [sum(t["seconds"]) for t in turns]
        seconds = median_interval([w / u for w, u in zip(wall, units, strict=True)])
        counts = part["passes"][label]
        pieces = len(counts["forward"])
        per = pieces if per_piece else part["passes_size"]
        joules = [t["joules"] for t in turns]
        found.append(
            Row(
                label=label,
                seconds=seconds,
                ratio=_ratio(rounds, label, baseline, "seconds") if baseline in labels else None,
                cpu_ratio=_ratio(rounds, label, baseline, "cpu_seconds") if baseline in labels else None,
                speed=median_interval([r["size"] / w for r, w in zip(rounds, wall, strict=True)]),
                joules=None
                if None in joules
                else median_interval([j / u for j, u in zip(joules, units, strict=True)]),
                epoch_seconds=seconds.times(part["steps_per_epoch"]) if per_piece else None,
                forward=sum(counts["forward"]) / pieces,
                backward=sum(counts["backward"]) / pieces,
                fed=sum(counts["tokens"]) / per,
                padding=sum(counts["padding"]) / per,
                peak_bytes=counts["peak_bytes"],
                peak_total_bytes=counts["peak_total_bytes"],
            )
        )
    return found


def _ratio(rounds: Sequence[Mapping[str, Any]], label: str, baseline: str, what: str) -> Interval | None:
    pairs = [(sum(r["turns"][label][what]), sum(r["turns"][baseline][what])) for r in rounds]
    if any(base <= 0 for _, base in pairs):  # a clock of too low resolution
        return None
    return median_interval([own / base for own, base in pairs])
