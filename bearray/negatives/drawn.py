"""What a supplier of other answers returns, and the random numbers it may use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np


class Drawn(NamedTuple):
    """One other answer of a window."""

    title: int
    """Which title (`Catalog` index)."""
    score: float = 0.0
    """The log-probability under which it was decoded; 0 if it was not."""


class Supplier(Protocol):
    """Other answers for training windows."""

    uses_model: bool
    """It runs the model that is in training, so weights must be at hand on every worker."""

    def __call__(self, rows: Sequence[int], step: int) -> list[list[Drawn]]:
        """For windows (by number), at an optimiser step."""
        ...


def stream(seed: int, step: int, row: int) -> np.random.Generator:
    """Random numbers of their own for each window and step."""
    return np.random.default_rng([seed, step, row])
