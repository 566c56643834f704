"""From raw round times to medians, intervals and ratios. Every number is computed from what a file holds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from scipy.stats import binom

from bearray.efficiency.variants import DROPOUT

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
    """Of this contender's time to the baseline's in the same round (`baseline_of`); None without one."""
    ratios: Mapping[str, Interval]
    """Of this contender's time to that of each other one in the same round, by label. A quotient of two
    medians is none of them: it has the drift between rounds in it."""
    bear_ratio: Interval | None
    """Training: of this objective's time to BEAR's in the same round, as `ratio` is to SFT's."""
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


SFT, BEAR, BEAM = "sft", "bear", "beam"
"""What others are compared with."""


def training_rows(part: Mapping[str, Any]) -> list[Row]:
    """The objectives of the file's "training" part, in its order; [] before the first round has ended."""
    return _rows(part, SFT, training=True)


def decoding_rows(part: Mapping[str, Any]) -> list[Row]:
    """The decoders of the file's "decoding" part."""
    return _rows(part, BEAM, training=False)


def baseline_of(label: str, contenders: Mapping[str, Mapping[str, Any]], baseline: str) -> str | None:
    """The label of what a contender is compared with: the baseline in the adapter that it has itself.

    An objective that was timed with a LoRA dropout of its own is compared with SFT of the same dropout,
    `sft:lora_dropout=0`, as the two would be trained side by side: dropout has a cost, and it is not the
    objective's. None where that was not timed.
    """
    own = contenders[label].get(DROPOUT)
    plain = re.compile(rf"{re.escape(baseline)}(:\s*{DROPOUT}\s*=[^,]*)?")
    return next(
        (name for name, c in contenders.items() if plain.fullmatch(name) and c.get(DROPOUT) == own),
        None,
    )


def _rows(part: Mapping[str, Any], baseline: str, *, training: bool) -> list[Row]:
    rounds: Sequence[Mapping[str, Any]] = part["rounds"]
    if not rounds:
        return []
    labels = list(part["contenders"])
    bases = {label: baseline_of(label, part["contenders"], baseline) for label in labels}
    bears = {label: baseline_of(label, part["contenders"], BEAR) if training else None for label in labels}
    # What a time is of, a step or all users of a turn, and how many units (tokens, users) that has.
    units = [r["size"] / part["steps"] if training else r["size"] for r in rounds]
    divisors = [1 if training else r["size"] for r in rounds]
    found = []
    for label in labels:
        counts, weights = part["passes"][label], part["passes"][label]["weights"]
        wall = _of_rounds(part, label, "seconds")
        seconds = median_interval([w / d for w, d in zip(wall, divisors, strict=True)])
        joules = [r["turns"][label]["joules"] for r in rounds]
        pieces = part["steps"] if training else 1
        per = 1 if training else part["passes_size"]
        found.append(
            Row(
                label=label,
                seconds=seconds,
                ratio=_ratio(part, label, bases[label]),
                ratios={
                    other: ratio
                    for other in labels
                    if other != label and (ratio := _ratio(part, label, other)) is not None
                },
                bear_ratio=_ratio(part, label, bears[label]),
                cpu_ratio=_ratio(part, label, bases[label], "cpu_seconds"),
                speed=median_interval([u / w for u, w in zip(units, wall, strict=True)]),
                joules=None
                if None in joules or len(weights) > pieces  # one number for steps of several kinds
                else median_interval([j / pieces / d for j, d in zip(joules, divisors, strict=True)]),
                epoch_seconds=seconds.times(part["steps_per_epoch"][label]) if training else None,
                forward=_mean(counts["forward"], weights),
                backward=_mean(counts["backward"], weights),
                fed=_mean(counts["tokens"], weights) / per,
                padding=_mean(counts["padding"], weights) / per,
                peak_bytes=counts["peak_bytes"],
                peak_total_bytes=counts["peak_total_bytes"],
            )
        )
    return found


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(v * w for v, w in zip(values, weights, strict=True))


def _of_rounds(part: Mapping[str, Any], label: str, what: str) -> list[float]:
    """A contender's times, one a round."""
    weights = part["passes"][label]["weights"]
    return [_mean(r["turns"][label][what], weights) for r in part["rounds"]]


def _ratio(part: Mapping[str, Any], label: str, other: str | None, what: str = "seconds") -> Interval | None:
    """Of a contender's time to another one's in the same round; None where there is no other."""
    if other is None:
        return None
    base = _of_rounds(part, other, what)
    if min(base) <= 0:  # a clock of too low resolution
        return None
    return median_interval([a / b for a, b in zip(_of_rounds(part, label, what), base, strict=True)])
