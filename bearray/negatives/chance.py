"""Negatives by chance: every other title alike, or by how often it was chosen in training.

Without replacement: the negatives of a window are different titles, and never its target.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bearray.negatives.drawn import Drawn, stream

_TRIES = 16
"""Rounds of drawing with replacement before the rest is drawn exactly, when a few titles have nearly all of
the mass."""


class UniformNegatives:
    """Titles other than the target, all equally likely.

    Args:
        targets: [W] each training window's target title.
        titles: number of titles, above `count`.
        count: negatives of each window.
        seed: of the run.
    """

    uses_model = False

    def __init__(self, targets: Sequence[int], titles: int, count: int, seed: int) -> None:
        self.targets, self.titles, self.count, self.seed = targets, titles, count, seed

    def __call__(self, rows: Sequence[int], step: int) -> list[list[Drawn]]:
        """`count` negatives for each window."""
        return [[Drawn(t) for t in self._one(row, step)] for row in rows]

    def _one(self, row: int, step: int) -> list[int]:
        target = self.targets[row]
        found = stream(self.seed, step, row).choice(self.titles - 1, size=self.count, replace=False)
        return [int(t) + (int(t) >= target) for t in found]  # numbers from the target on move up by one


class PopularityNegatives:
    """Titles other than the target, with probability proportional to their training count at each draw;
    titles that never occur in training are never drawn.

    Args:
        targets: [W] each training window's target title.
        counts: [titles] how often each title occurs in training; more than `count` of them above 0, with any
            one left out.
        count: negatives of each window.
        seed: of the run.
    """

    uses_model = False

    def __init__(self, targets: Sequence[int], counts: np.ndarray, count: int, seed: int) -> None:
        self.targets, self.count, self.seed = targets, count, seed
        self.counts = counts.astype(np.float64)
        self.upto = np.cumsum(self.counts)

    def __call__(self, rows: Sequence[int], step: int) -> list[list[Drawn]]:
        """`count` negatives for each window."""
        return [[Drawn(t) for t in self._one(row, step)] for row in rows]

    def _one(self, row: int, step: int) -> list[int]:
        rng, target = stream(self.seed, step, row), self.targets[row]
        found: dict[int, None] = {}  # in the order of drawing
        for _ in range(_TRIES):
            # What was drawn before is passed over: the same as drawing from the others, renormalised.
            places = rng.random(2 * self.count) * self.upto[-1]
            for title in np.searchsorted(self.upto, places, side="right").tolist():
                if title != target and len(found) < self.count:
                    found.setdefault(title)
            if len(found) == self.count:
                return list(found)
        left = self.counts.copy()
        left[[target, *found]] = 0.0
        more = rng.choice(len(left), size=self.count - len(found), replace=False, p=left / left.sum())
        return [*found, *more.tolist()]
