from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearray.data import SPLITS, open_dataset
from bearray.data.protocol import cut_points, k_core, make_windows, parse_ratio, split_windows
from bearray.data.windows import Windows
from bearray.errors import ConfigError, DataError

Event = tuple[int, int, int]
events = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 12), st.integers(0, 20)), max_size=120)


def columns(rows: list[Event]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def rows_of(windows: Windows) -> list[tuple[int, list[int], int]]:
    bounds = windows.offsets.tolist()
    return [
        (int(user), windows.items[a:b].tolist(), int(time))
        for user, a, b, time in zip(windows.user_id, bounds[:-1], bounds[1:], windows.timestamp, strict=True)
    ]


def naive_windows(rows: list[Event], history: int = 10) -> list[tuple[int, list[int], int]]:
    """The protocol as METHODS words it: instances end at i = min(10, N-1)..N-1 and hold items max(0,
    i-10)..i."""
    per_user: dict[int, list[Event]] = defaultdict(list)
    for row in rows:
        per_user[row[0]].append(row)
    found = []
    for user in sorted(per_user):
        own = sorted(per_user[user], key=lambda row: row[2])
        for i in range(min(history, len(own) - 1), len(own)):
            if i >= 1:
                found.append((user, [row[1] for row in own[max(0, i - history) : i + 1]], own[i][2]))
    return sorted(found, key=lambda window: window[2])


@given(events)
def test_windows_equal_the_naive_protocol(rows: list[Event]) -> None:
    assert rows_of(make_windows(*columns(rows))) == naive_windows(rows)


@given(events, st.integers(1, 4))
def test_other_history_lengths(rows: list[Event], history: int) -> None:
    assert rows_of(make_windows(*columns(rows), history=history)) == naive_windows(rows, history)


@pytest.mark.parametrize(
    ("n", "lengths"), [(1, []), (2, [2]), (5, [5]), (11, [11]), (12, [11, 11]), (14, [11] * 4)]
)
def test_number_and_length_of_windows(n: int, lengths: list[int]) -> None:
    windows = make_windows(np.zeros(n, int), np.arange(n), np.arange(n))
    assert np.diff(windows.offsets).tolist() == lengths
    assert windows.targets.tolist() == list(range(n - len(lengths), n))


def test_ties_keep_their_order() -> None:
    users, items = np.array([2, 1, 1, 2, 1]), np.array([9, 4, 3, 1, 2])
    windows = make_windows(users, items, np.full(5, 7))
    assert rows_of(windows) == [(1, [4, 3, 2], 7), (2, [9, 1], 7)]


def naive_core(rows: list[Event], k: int) -> list[bool]:
    keep = [True] * len(rows)
    while True:
        users = Counter(row[0] for row, stays in zip(rows, keep, strict=True) if stays)
        items = Counter(row[1] for row, stays in zip(rows, keep, strict=True) if stays)
        new = [s and users[r[0]] >= k and items[r[1]] >= k for r, s in zip(rows, keep, strict=True)]
        if new == keep:
            return keep
        keep = new


@given(events, st.integers(1, 6))
def test_core_equals_the_naive_one(rows: list[Event], k: int) -> None:
    users, items, _ = columns(rows)
    keep = k_core(users, items, k)
    assert keep.tolist() == naive_core(rows, k)
    for ids in (users[keep], items[keep]):
        assert all(count >= k for count in Counter(ids.tolist()).values())


def test_core_is_iterated() -> None:
    # item 3 is rare; without it user 2 is; without user 2 item 2 is; and so on down to nothing
    users, items = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 2, 2, 3])
    assert not k_core(users, items, 2).any()


def test_core_below_one() -> None:
    with pytest.raises(ConfigError, match="k_core is 0"):
        k_core(np.array([1]), np.array([1]), 0)


@given(st.integers(0, 10**6))
def test_cut_is_that_of_the_published_code(n: int) -> None:
    assert cut_points(n) == (int(0.8 * n), int(0.9 * n))


@pytest.mark.parametrize("text", ["8:1:1", "80:10:10", "0.8:0.1:0.1", " 8 : 1 : 1 "])
def test_ratio(text: str) -> None:
    assert parse_ratio(text) == (Fraction(4, 5), Fraction(1, 10), Fraction(1, 10))


@pytest.mark.parametrize(
    "text", ["8:1", "8:1:0", "8:-1:1", "a:b:c", "8:1:1:1", "", "0.8:0.1:0.2", "1/0:1:1", "nan:1:1"]
)
def test_wrong_ratio(text: str) -> None:
    with pytest.raises(ConfigError, match="ratio is"):
        parse_ratio(text)


def test_splits_partition_the_windows_in_time() -> None:
    rng = np.random.default_rng(0)
    windows = make_windows(rng.integers(0, 40, 900), rng.integers(0, 50, 900), rng.integers(0, 500, 900))
    splits = split_windows(windows, parse_ratio("6:3:1"))
    joined = [row for split in SPLITS for row in rows_of(splits[split])]
    assert joined == rows_of(windows)
    assert len(splits["train"]) == int(0.6 * len(windows))
    assert splits["train"].timestamp.max() <= splits["valid"].timestamp.min()
    assert splits["valid"].timestamp.max() <= splits["test"].timestamp.min()


def test_too_few_windows_for_three_splits() -> None:
    windows = make_windows(np.repeat(np.arange(4), 2), np.arange(8), np.arange(8))
    with pytest.raises(DataError, match=r"4 windows cut 0\.8:0\.1:0\.1 leave valid empty"):
        split_windows(windows)


@pytest.mark.data
def test_toy_windows_are_those_published(shared: Callable[[str], Path]) -> None:
    folder = shared("toy")
    table = pd.read_parquet(folder / "interactions_all.parquet")
    users, items, times = (table[name].to_numpy() for name in ("user_id", "item_id", "timestamp"))
    assert k_core(users, items, 5).all()
    splits = split_windows(make_windows(users, items, times))
    published = open_dataset(folder)
    cuts = {int(splits[split].timestamp[0]) for split in ("valid", "test")}
    everything: list[Counter] = [Counter(), Counter()]
    for split in SPLITS:
        frame = published.split(split)
        theirs = Counter((tuple(i), t) for i, t in zip(frame["item_ids"], frame["timestamp"], strict=True))
        ours = Counter((tuple(i), t) for _, i, t in rows_of(splits[split]))
        assert len(splits[split]) == len(frame)
        differ = (ours - theirs) + (theirs - ours)
        assert {time for _, time in differ} <= cuts, "only windows at the time of a cut may change sides"
        everything[0] += ours
        everything[1] += theirs
    assert everything[0] == everything[1]
