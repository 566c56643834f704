"""From interactions to windows: the k-core, the sliding windows, the chronological cut (METHODS, section 1).

Ties. Interactions of a user at the same time keep the order in which they were given; windows with the same
target time are ordered by user id, then by their place in the user's history. Both follow from stable sorts,
so equal input gives equal output. Where a cut falls among windows of one time, some of them land on each side
of it.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import cast

import numpy as np
from numpy.typing import NDArray

from bearray.data.dataset import SPLITS, Split
from bearray.data.windows import Windows
from bearray.errors import ConfigError, DataError

HISTORY = 10
"""Items before the target in a full window."""
Ratio = tuple[Fraction, Fraction, Fraction]
RATIO: Ratio = (Fraction(8, 10), Fraction(1, 10), Fraction(1, 10))
"""train : valid : test of the papers of this family."""


def parse_ratio(text: str) -> Ratio:
    """ "8:1:1" (or "0.8:0.1:0.1") as exact shares that sum to 1.

    Raises:
        ConfigError: not three numbers above 0, or three shares below 1 that do not sum to 1.
    """
    wanted = "three numbers above 0 such as 8:1:1 (train : valid : test)"
    try:
        parts = [Fraction(part.strip()) for part in text.split(":")]
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"ratio is {text!r}; it must be {wanted}") from error
    if len(parts) != 3 or min(parts) <= 0:
        raise ConfigError(f"ratio is {text!r}; it must be {wanted}")
    total = sum(parts)
    if max(parts) < 1 and total != 1:
        raise ConfigError(f"ratio is {text!r}, shares that sum to {float(total):g}; they must sum to 1")
    return cast("Ratio", tuple(part / total for part in parts))


def k_core(users: NDArray[np.integer], items: NDArray[np.integer], k: int) -> NDArray[np.bool_]:
    """Which interactions stay when every user and every item is to have at least k of them.

    Removing one can take another below k, so it is repeated until nothing changes: the largest such set.
    Repeated interactions count each time.

    Args:
        users: [M] user of each interaction.
        items: [M] its item.
        k: at least 1; 1 keeps everything.

    Returns:
        [M] bool.

    Raises:
        ConfigError: k below 1.
    """
    if k < 1:
        raise ConfigError(f"k_core is {k}; it must be at least 1")
    user_code = np.unique(users, return_inverse=True)[1]
    item_code = np.unique(items, return_inverse=True)[1]
    keep = np.ones(len(users), dtype=bool)
    rows = np.arange(len(users))
    while len(rows):
        enough_user = np.bincount(user_code[rows]) >= k
        enough_item = np.bincount(item_code[rows]) >= k
        good = enough_user[user_code[rows]] & enough_item[item_code[rows]]
        if good.all():
            break
        keep[rows[~good]] = False
        rows = rows[good]
    return keep


def make_windows(
    users: NDArray[np.integer],
    items: NDArray[np.integer],
    times: NDArray[np.integer],
    *,
    history: int = HISTORY,
) -> Windows:
    """All windows, sorted by target time.

    A user with n <= history + 1 interactions gives one window of all of them, a user with more gives n -
    history windows of history + 1 items. A user with one interaction gives none: there is no history.

    Args:
        users, items, times: [M] each; any order of rows, ties as the module says.
        history: most items before the target.
    """
    order = np.lexsort((times, users))
    users, items, times = users[order], items[order], times[order]
    ids, first, counts = np.unique(users, return_index=True, return_counts=True)
    many = np.where(counts < 2, 0, np.maximum(1, counts - history))
    lead = first + np.minimum(history, counts - 1)
    # `end` and `begin` are the rows of a window's target and of its oldest item.
    starts = np.concatenate(([0], np.cumsum(many)))
    end = np.repeat(lead - starts[:-1], many) + np.arange(starts[-1])
    begin = np.maximum(np.repeat(first, many), end - history)
    lengths = end - begin + 1
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    rows = np.repeat(begin - offsets[:-1], lengths) + np.arange(offsets[-1])
    windows = Windows(
        user_id=np.repeat(ids, many).astype(np.int64),
        offsets=offsets.astype(np.int64),
        items=items[rows].astype(np.int64),
        timestamp=times[end].astype(np.int64),
    )
    return windows.take(np.argsort(windows.timestamp, kind="stable"))


def cut_points(n: int, ratio: Ratio = RATIO) -> tuple[int, int]:
    """Where validation and test begin among n windows: int(.8 n) and int(.9 n) by default, in exact
    arithmetic."""
    return math.floor(n * ratio[0]), math.floor(n * (ratio[0] + ratio[1]))


def split_windows(windows: Windows, ratio: Ratio = RATIO) -> dict[Split, Windows]:
    """Cut windows that are sorted by time into train, valid and test.

    Raises:
        DataError: a split would be empty.
    """
    first, second = cut_points(len(windows), ratio)
    bounds = (0, first, second, len(windows))
    sizes = np.diff(bounds).tolist()
    if min(sizes) == 0:
        empty = ", ".join(split for split, size in zip(SPLITS, sizes, strict=True) if not size)
        shares = ":".join(f"{float(part):g}" for part in ratio)
        raise DataError(
            f"{len(windows)} windows cut {shares} leave {empty} empty; "
            "more interactions, a smaller k-core or another ratio are needed"
        )
    rows = np.arange(len(windows))
    return {
        split: windows.take(rows[a:b]) for split, a, b in zip(SPLITS, bounds[:-1], bounds[1:], strict=True)
    }
