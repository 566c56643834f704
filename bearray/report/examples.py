"""Test cases in which one run does much better or much worse than another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bearray.report.background import Background

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What one run did with a test case."""

    rank: int | None
    """Place of the target from 1; None: not in the list."""
    titles: tuple[str, ...]
    """Its list, best first."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A test case."""

    won: bool
    """Better than the first run."""
    difference: float
    row: int
    user: int
    history: tuple[str, ...] | None
    """Titles, oldest first; None where the data set is not there."""
    target: str
    first: Shown
    other: Shown


def pick(
    first: pd.DataFrame,
    other: pd.DataFrame,
    difference: NDArray[np.float64],
    count: int,
    background: Background | None,
    histories: Sequence[Ints] | None,
) -> tuple[Example, ...]:
    """The `count` test cases with the largest gain, then those with the largest loss, largest first; equal
    ones in the order of the test cases. Fewer where there are fewer with a difference.

    Args:
        first, other: predictions for the same U test cases.
        difference: [U] a metric of `other` minus that of `first`.
        count: at least 0.
        background, histories: the data set and its histories of these cases; None: items are shown by number.
    """
    wins = [i for i in np.argsort(-difference, kind="stable")[:count] if difference[i] > 0]
    losses = [i for i in np.argsort(difference, kind="stable")[:count] if difference[i] < 0]
    cases = list(zip(first["row"], first["user_id"], first["target"], strict=True))
    ranks = [frame["rank"].to_numpy(dtype=float) for frame in (first, other)]
    lists = [frame["items"].tolist() for frame in (first, other)]
    found = []
    for i in [*wins, *losses]:
        row, user, target = map(int, cases[i])
        by_first, by_other = (
            _shown(float(rank[i]), items[i], background) for rank, items in zip(ranks, lists, strict=True)
        )
        history = None
        if background is not None and histories is not None:
            history = tuple(background.titles[t] for t in histories[i])
        found.append(
            Example(
                won=bool(difference[i] > 0),
                difference=float(difference[i]),
                row=row,
                user=user,
                history=history,
                target=_names([target], background)[0],
                first=by_first,
                other=by_other,
            )
        )
    return tuple(found)


def _shown(rank: float, items: Sequence[int], background: Background | None) -> Shown:
    return Shown(
        rank=int(rank) + 1 if np.isfinite(rank) else None,
        titles=_names([int(item) for item in items if item >= 0], background),
    )


def _names(items: Sequence[int], background: Background | None) -> tuple[str, ...]:
    if background is None:
        return tuple(f"item {item}" for item in items)
    return tuple(background.titles[t] for t in background.title_ids(list(items)))
