"""The data view: titles in rectangles, and negatives that are what they are called."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bearray.baselines.data import PAD, TitleWindows, UnseenTitles, number_titles, pad_titles, view
from bearray.data import Dataset, open_dataset
from bearray.errors import DataError


def test_windows_are_padded_on_the_left_and_keep_their_newest_items() -> None:
    of = {10: 0, 20: 1, 30: 2, 40: 0}
    padded = pad_titles([[10, 20], [10, 20, 30, 40, 30], []], of, 4)
    assert padded.tolist() == [[PAD, PAD, 0, 1], [1, 2, 0, 2], [PAD] * 4]
    assert padded.dtype == torch.int64


def test_an_item_without_a_title_is_named() -> None:
    with pytest.raises(DataError, match="window 1 holds item 99"):
        pad_titles([[10], [99, 10]], {10: 0}, 3)


def test_titles_are_numbered_as_in_a_catalogue(micro_task: Any) -> None:
    assert number_titles(micro_task.dataset.items) == micro_task.catalog.title_of_item


def test_items_that_share_a_title_share_a_number() -> None:
    items = pd.DataFrame({"item_id": [7, 3, 5], "title": ["Pen &amp; Ink", "Ruler", " Pen & Ink "]})
    assert number_titles(items) == {3: 0, 5: 1, 7: 1}
    assert number_titles(items, unescape=False) == {3: 0, 5: 1, 7: 2}


def test_the_view_holds_all_windows_of_all_splits(demo_dir: Any) -> None:
    dataset = open_dataset(demo_dir)
    of = number_titles(dataset.items)
    data = view(dataset, of, max_history=10)
    for split in ("train", "valid", "test"):
        frame, windows = dataset.split(split), getattr(data, split)
        assert len(windows) == len(frame)
        for items, user, row, who in zip(
            frame["item_ids"], frame["user_id"], windows.titles.tolist(), windows.users, strict=True
        ):
            assert [t for t in row if t != PAD] == [of[i] for i in items[-11:]] and who == user
        assert windows.targets.tolist() == [of[items[-1]] for items in frame["item_ids"]]
        assert windows.histories.shape == (len(frame), 10)


def windows_of(seen: dict[int, list[list[int]]]) -> TitleWindows:
    rows = [(user, w) for user, lists in seen.items() for w in lists]
    width = max(len(w) for _, w in rows)
    titles = torch.tensor([[PAD] * (width - len(w)) + w for _, w in rows])
    return TitleWindows(titles=titles, users=np.array([user for user, _ in rows]))


class EveryRank:
    """Stands for a random generator: gives 0, 1, 2, ... modulo the number of choices."""

    def integers(self, low: int, high: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return np.arange(size[1])[None, :] % np.broadcast_to(high, size)


@settings(deadline=None)
@given(st.data())
def test_every_unseen_title_has_one_rank_and_no_seen_one_has(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 12))
    lists = st.lists(st.lists(st.integers(0, count - 1), min_size=1, max_size=5), min_size=1, max_size=3)
    seen = data.draw(st.dictionaries(st.integers(0, 10**6), lists, min_size=1, max_size=4))
    titles = {user: {t for w in ws for t in w} for user, ws in seen.items()}
    windows = windows_of(seen)
    if any(len(t) == count for t in titles.values()):
        with pytest.raises(DataError, match=f"all {count} titles"):
            UnseenTitles(windows, count)
        return
    drawn = UnseenTitles(windows, count).draw(windows.users, count, EveryRank())  # type: ignore[arg-type]
    for user, row in zip(windows.users, drawn.tolist(), strict=True):
        unseen = sorted(set(range(count)) - titles[user])
        assert row == [unseen[i % len(unseen)] for i in range(count)]


def test_negatives_are_uniform_and_unseen_anywhere_in_the_users_windows(circle: Dataset) -> None:
    windows = windows_of({5: [[0, 1], [1, 2]], 3: [[9]]})
    drawn = UnseenTitles(windows, 10).draw(windows.users, 7000, np.random.default_rng(0)).numpy()
    for row, unseen in ((0, range(3, 10)), (1, range(3, 10)), (2, range(9))):
        counts = np.bincount(drawn[row], minlength=10)
        assert set(np.flatnonzero(counts)) == set(unseen)
        expected = 7000 / len(unseen)
        assert np.abs(counts[list(unseen)] - expected).max() < 6 * np.sqrt(expected)


def test_batches_draw_negatives_for_their_own_users(circle: Dataset) -> None:
    data = view(circle, number_titles(circle.items), max_history=6)
    rows = np.array([17, 3, 250])
    batch = data.batch(rows, np.random.default_rng(0), "cpu")
    assert torch.equal(batch.titles, data.train.titles[rows])
    for row, drawn in zip(rows, batch.draw_unseen(500).tolist(), strict=True):
        seen = {t for t in data.train.titles[row].tolist() if t != PAD}
        assert set(drawn) == set(range(40)) - seen
