"""Which optimiser steps each epoch of a run has, and their learning rates."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from bearray.objectives import Round


class Timeline:
    """Epochs and steps of a run, both counted from 0; epochs differ where an objective's rounds do.

    Args:
        rounds: of each epoch.
        windows: of the training split.
        batch_size: windows per step.
    """

    def __init__(self, rounds: Sequence[Round], *, windows: int, batch_size: int) -> None:
        self.rounds = tuple(rounds)
        self._steps = [-(-r.size(windows) // batch_size) for r in rounds]
        self._first = [0, *accumulate(self._steps)]

    @property
    def total_steps(self) -> int:
        return self._first[-1]

    def first_step(self, epoch: int) -> int:
        """The step with which an epoch begins; of the epoch after the last, the number of steps."""
        return self._first[epoch]

    def steps_of(self, epoch: int) -> int:
        return self._steps[epoch]

    def epoch_of(self, step: int) -> int:
        """The epoch that a step belongs to; steps after the run's end belong to its last."""
        return min(bisect_right(self._first, step), len(self.rounds)) - 1

    def epochs_done(self, step: int) -> float:
        """Epochs finished once a step is taken, with the finished part of its own: 1.5 in the middle of the
        second."""
        epoch = self.epoch_of(step)
        return epoch + (step + 1 - self._first[epoch]) / self._steps[epoch]

    def continues_draw(self, epoch: int) -> bool:
        """Whether an epoch has the windows and answers of the one before it; not one after the run's end."""
        if not 0 < epoch < len(self.rounds) or self.rounds[epoch].draw is None:
            return False
        return self.rounds[epoch].draw == self.rounds[epoch - 1].draw


def learning_rate(step: int, total: int, *, peak: float, warmup: int, schedule: str) -> float:
    """Linear warm-up over `warmup` steps, then constant or linear to 0 at `total`; `step` counts from 0."""
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    fall = 1.0 if schedule == "constant" else min(1.0, (total - step) / max(1, total - warmup))
    return peak * rise * max(0.0, fall)
