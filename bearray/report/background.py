"""The data set behind a run: titles, how often each is a training target, the histories of the test cases.

Run folders hold item ids and no more. Where the data set that a run's config.json names is still there, and
is the same by its content hash, a reader can be told more; where it is not, the reason is told instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bearray.beyond_accuracy import popularity_groups, title_words
from bearray.config import DataConfig, from_dict
from bearray.data import Dataset, clean_title, open_dataset
from bearray.errors import BearrayError, DataError, MissingFileError
from bearray.report.records import Run
from bearray.task import sampled_windows

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Background:
    """A data set with its titles numbered by their lowest item id; equal titles are one, as in the trie."""

    dataset: Dataset
    titles: Sequence[str]
    """[I] cleaned, all different."""
    items: Ints
    """Item ids, ascending."""
    title_of_item: Ints
    """Title of each of `items`."""

    @cached_property
    def popularity(self) -> Ints:
        """[I] windows of the whole training split whose target has each title."""
        targets = [window[-1] for window in self.dataset.train["item_ids"]]
        return np.bincount(self.title_ids(targets), minlength=len(self.titles)).astype(np.int64)

    @cached_property
    def groups(self) -> Ints:
        """[I] head, mid or tail (`popularity_groups`)."""
        return popularity_groups(self.popularity)

    @cached_property
    def words(self) -> list[frozenset[str]]:
        """[I] the words of each title."""
        return [title_words(title) for title in self.titles]

    def title_ids(self, items: ArrayLike) -> Ints:
        """Titles of items, in the same shape; -1 (an empty place) stays -1.

        Raises:
            DataError: an item that the data set does not hold.
        """
        wanted = np.asarray(items, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.items, wanted), len(self.items) - 1)
        unknown = (self.items[place] != wanted) & (wanted >= 0)
        if unknown.any():
            raise DataError(f"the data set {self.dataset.name} has no item {wanted[unknown][0]}")
        return np.where(wanted >= 0, self.title_of_item[place], -1)

    def histories(self, run: Run, frame: pd.DataFrame) -> list[Ints]:
        """Title ids of the history of each test case of `frame`, oldest first.

        Raises:
            DataError: the data set's test windows are not the run's test cases.
        """
        windows = sampled_windows(self.dataset, data_config(run), "test")
        rows = frame["row"].to_numpy(dtype=np.int64)
        if rows.size and not (rows.min() >= 0 and rows.max() < len(windows)):
            raise DataError(
                f"{run.id} has test case {rows.max()}; its data set has {len(windows)} test windows"
            )
        of_window = windows["item_ids"].tolist()
        found = [of_window[row] for row in rows]
        targets = np.array([items[-1] for items in found], dtype=np.int64)
        users = windows["user_id"].to_numpy(dtype=np.int64)[rows]
        other = (targets != frame["target"].to_numpy()) | (users != frame["user_id"].to_numpy())
        if other.any():
            at = int(other.argmax())
            raise DataError(
                f"{run.id}, test case {rows[at]}: user {frame['user_id'].iat[at]} and target "
                f"{frame['target'].iat[at]}, but the data set has user {users[at]} and target {targets[at]}"
            )
        flat = self.title_ids([item for items in found for item in items[:-1]])
        return np.split(flat, np.cumsum([len(items) - 1 for items in found])[:-1])


class Backgrounds:
    """Opens the data sets of runs, each once.

    Args:
        data_dir: the data set of all runs, where it was moved; None: where each config.json has it, which
            must be a folder here: an address in a file that others wrote is not followed.
    """

    def __init__(self, data_dir: str | None = None) -> None:
        self._data_dir = data_dir
        self._found: dict[tuple[str, bool, bool], Background | BearrayError] = {}

    def find(self, run: Run) -> Background:
        """The run's data set.

        Raises:
            MissingFileError: it is not there.
            DataError: it is another one or damaged, or config.json does not say which it is. Messages hold
                no path but its last name, so that they can stand in a report.
        """
        config = data_config(run)
        place = self._data_dir or config.path
        key = (place, config.strict, config.unescape)
        if key not in self._found:
            try:
                self._found[key] = _open(place, config, trusted=self._data_dir is not None)
            except BearrayError as error:
                self._found[key] = error
        found = self._found[key]
        if isinstance(found, BearrayError):
            raise found
        if run.data_hash is None:
            raise DataError(f"{run.id}/config.json has no data_hash, so its data set cannot be recognised")
        if found.dataset.content_hash != run.data_hash:
            raise DataError(
                f"the data set {found.dataset.name} has content hash {found.dataset.content_hash[:12]}, and "
                f"{run.id} was trained on {run.data_hash[:12]}"
            )
        return found


def data_config(run: Run) -> DataConfig:
    """A run's `data` settings.

    Raises:
        DataError: they are of no run of this version.
    """
    try:
        return from_dict(DataConfig, run.settings.get("data") or {}, "run.data")
    except BearrayError as error:
        raise DataError(f"{run.id}/config.json: {error}") from error


def lists_of(frame: pd.DataFrame, k: int) -> Ints:
    """[U,k] the first k recommended items of each test case; -1 where a list is shorter."""
    items = frame["items"].tolist()
    lengths = np.array([len(of) for of in items], dtype=np.int64)
    flat = np.concatenate([*items, np.empty(0, dtype=np.int64)]).astype(np.int64)
    place = np.arange(len(flat)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kept = (place < k) & (flat >= 0)
    found = np.full((len(frame), k), -1, dtype=np.int64)
    found[np.repeat(np.arange(len(frame)), lengths)[kept], place[kept]] = flat[kept]
    return found


def _open(place: str, config: DataConfig, *, trusted: bool) -> Background:
    name = place.rstrip("/").rpartition("/")[2] or place
    hint = "give the folder where it is now (--data-dir)"
    if not trusted and ("://" in place or "\0" in place or not place):
        raise MissingFileError(f"the data set is not in a folder here; {hint}")
    if "://" not in place and not Path(place).is_dir():
        raise MissingFileError(f"the data set {name} is not where config.json has it; {hint}")
    try:
        dataset = open_dataset(place, strict=config.strict)
    except BearrayError as error:
        parent = place.rstrip("/").rpartition("/")[0]
        message = str(error).replace(f"{parent}/", "") if parent else str(error)
        raise DataError(f"the data set {name} cannot be read: {message}") from error
    ordered = dataset.items.sort_values("item_id", kind="stable")
    cleaned = [clean_title(str(title), unescape=config.unescape) for title in ordered["title"]]
    numbers: dict[str, int] = {}
    title_of_item = [numbers.setdefault(title, len(numbers)) for title in cleaned]
    return Background(
        dataset=dataset,
        titles=list(numbers),
        items=ordered["item_id"].to_numpy(dtype=np.int64),
        title_of_item=np.array(title_of_item, dtype=np.int64),
    )
