"""Rounds: what each epoch of a run does. Most objectives do the same in all of them; self-play takes turns.

A round is told apart from a loss so that the one training loop can follow any schedule: which loss, on which
windows, against which reference, with answers made when.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bearray.objectives.base import Objective

_DRAWS = 1_000_003
"""Keeps the random numbers of draws apart from those of epochs and steps."""


@dataclass(frozen=True)
class Draw:
    """Training windows that one or more consecutive rounds share, with the answers beside their targets.

    Where the objective asks for other answers (`Objective.negatives`), they are made once, when the first of
    these rounds begins, by the model as it stands then.
    """

    number: int
    """Which draw it is; windows depend on (seed, number)."""
    windows: int | None = None
    """How many, without replacement; None, or more than there are: all."""

    def rows(self, total: int, *, seed: int) -> np.ndarray:
        """[windows] int64 numbers of the drawn windows among `total`, ascending."""
        if self.size(total) == total:
            return np.arange(total)
        rng = np.random.default_rng([seed, self.number, _DRAWS])
        return np.sort(rng.choice(total, size=self.size(total), replace=False))

    def size(self, total: int) -> int:
        """How many of `total` windows are drawn."""
        return total if self.windows is None else min(self.windows, total)


@dataclass(frozen=True)
class Round:
    """What one epoch does."""

    loss: Objective
    """The loss of its steps."""
    label: str = ""
    """What log rows call it; empty where all rounds of an objective are alike."""
    draw: Draw | None = None
    """The windows it passes over once; None: all training windows, other answers made anew at each step."""
    new_reference: bool = False
    """The frozen reference becomes the model as it stands when the round begins."""

    def size(self, total: int) -> int:
        """Windows of the round, where the training split has `total`."""
        return total if self.draw is None else self.draw.size(total)
