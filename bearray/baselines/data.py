"""Windows as every baseline reads them: title ids in rectangles, padded on the left.

Titles and not items are what is predicted, because that is what an LLM recommender can tell apart
(`bearray.catalog`): items that share a title are one, in histories, as targets and as negatives. All
training windows are read, not only those that an LLM is tuned on.

Axis letters: W windows, L places of a history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bearray.baselines.parts import LLMParts
from bearray.data import Dataset, clean_title
from bearray.errors import DataError

PAD = -1
"""Stands where a history has no item."""


def number_titles(items: pd.DataFrame, *, unescape: bool = True) -> dict[int, int]:
    """Item id to title id, without a tokenizer.

    Title ids follow the lowest item id that has the title, as in a `Catalog`; the two differ only if the
    catalogue's tokenizer writes different titles alike.

    Args:
        items: columns item_id and title, as `open_dataset` returns them.
        unescape: turn HTML entities into characters first, as `DataConfig.unescape`.
    """
    ordered = items.sort_values("item_id", kind="stable")
    texts = [clean_title(title, unescape=unescape) for title in ordered["title"]]
    first: dict[str, int] = {}
    return {int(i): first.setdefault(t, len(first)) for i, t in zip(ordered["item_id"], texts, strict=True)}


def title_texts(items: pd.DataFrame, *, unescape: bool = True) -> list[str]:
    """[titles] the texts, by the numbers of `number_titles`; arguments as there."""
    ordered = items.sort_values("item_id", kind="stable")["title"]
    return list(dict.fromkeys(clean_title(title, unescape=unescape) for title in ordered))


def pad_titles(windows: Sequence[Sequence[int]], title_of_item: Mapping[int, int], width: int) -> Tensor:
    """Windows of item ids as title ids.

    Args:
        windows: W lists of item ids, oldest first; of longer ones the newest `width` are kept.
        title_of_item: the title of each item.
        width: places.

    Returns:
        [W, width] int64, `PAD` on the left of shorter windows.

    Raises:
        DataError: an item that has no title id.
    """
    padded = np.full((len(windows), width), PAD, dtype=np.int64)
    for row, items in enumerate(windows):
        newest = items[-width:]
        try:
            if len(newest):
                padded[row, width - len(newest) :] = [title_of_item[int(i)] for i in newest]
        except KeyError as error:
            raise DataError(f"window {row} holds item {error}, which is not in the catalogue") from error
    return torch.from_numpy(padded)


@dataclass(frozen=True, eq=False)
class TitleWindows:
    """The windows of a split."""

    titles: Tensor
    """[W, L + 1] int64 title ids, the history and, last, the target."""
    users: np.ndarray
    """[W] user ids."""

    def __len__(self) -> int:
        return len(self.users)

    @property
    def histories(self) -> Tensor:
        """[W, L]"""
        return self.titles[:, :-1]

    @property
    def targets(self) -> Tensor:
        """[W]"""
        return self.titles[:, -1]


class UnseenTitles:
    """Draws titles that a user has not interacted with in the training split.

    A draw is exact and takes no second try: the r-th unseen title of a user is r plus the number of seen
    titles s_0 < s_1 < ... with s_i - i <= r, found by one binary search over all users' s_i - i.

    Args:
        windows: the training windows; what is in a user's windows is what the user has seen.
        num_titles: titles of the catalogue.

    Raises:
        DataError: a user has seen every title.
    """

    def __init__(self, windows: TitleWindows, num_titles: int) -> None:
        titles = windows.titles.numpy()
        self.users, index = np.unique(windows.users, return_inverse=True)
        row, place = np.nonzero(titles != PAD)
        pairs = np.unique(index.reshape(-1)[row] * num_titles + titles[row, place])
        user, seen = pairs // num_titles, pairs % num_titles
        counts = np.bincount(user, minlength=len(self.users))
        self._start = np.cumsum(counts) - counts
        self._unseen = num_titles - counts
        if len(counts) and not self._unseen.all():
            who = self.users[int(self._unseen.argmin())]
            raise DataError(
                f"user {who} has interacted with all {num_titles} titles, so there is no negative to draw; "
                "this baseline needs a larger catalogue"
            )
        self._stride = num_titles + 1
        self._keys = user * self._stride + seen - (np.arange(len(pairs)) - self._start[user])

    def draw(self, users: np.ndarray, count: int, rng: np.random.Generator) -> Tensor:
        """Uniform draws with replacement.

        Args:
            users: [W] users of the training windows.
            count: titles for each.
            rng: source of randomness.

        Returns:
            [W, count] int64 title ids.
        """
        index = np.searchsorted(self.users, users)[:, None]
        rank = rng.integers(0, self._unseen[index], size=(len(users), count))
        below = np.searchsorted(self._keys, index * self._stride + rank, side="right") - self._start[index]
        return torch.from_numpy(rank + below)


@dataclass(frozen=True, eq=False)
class TrainBatch:
    """Some training windows, and what is random about them."""

    rows: np.ndarray
    """[W] their numbers in the training split."""
    users: np.ndarray
    """[W] user ids."""
    titles: Tensor
    """[W, L + 1] title ids, on the model's device."""
    rng: np.random.Generator
    """Source of randomness for masks and the like; the same for the same epoch and step."""
    unseen: UnseenTitles

    def draw_unseen(self, count: int) -> Tensor:
        """[W, count] titles that the window's user has not seen in training, uniform."""
        return self.unseen.draw(self.users, count, self.rng).to(self.titles.device)


@dataclass(frozen=True, eq=False)
class BaselineData:
    """A data set as baselines see it; built by `view`."""

    train: TitleWindows
    valid: TitleWindows
    test: TitleWindows
    num_titles: int
    unseen: UnseenTitles

    def label_counts(self) -> Tensor:
        """[T] int64: how often a title is the next one after some place of a training window."""
        following = self.train.titles[:, 1:][self.train.histories != PAD]
        return torch.bincount(following, minlength=self.num_titles)

    def batch(self, rows: np.ndarray, rng: np.random.Generator, device: torch.device | str) -> TrainBatch:
        """Training windows by number."""
        titles = self.train.titles[torch.from_numpy(rows)].to(device)
        return TrainBatch(rows, self.train.users[rows], titles, rng, self.unseen)


def view(dataset: Dataset, title_of_item: Mapping[int, int], *, max_history: int) -> BaselineData:
    """All windows of a data set in title ids.

    Args:
        dataset: an opened data set.
        title_of_item: `Catalog.title_of_item`, or `number_titles` where there is no tokenizer; ids from 0
            without gaps.
        max_history: L; longer histories lose their oldest items.

    Raises:
        DataError: an item without a title id, or a user who has seen every title.
    """
    splits = {
        name: TitleWindows(
            titles=pad_titles(list(frame["item_ids"]), title_of_item, max_history + 1),
            users=frame["user_id"].to_numpy(dtype=np.int64),
        )
        for name, frame in (("train", dataset.train), ("valid", dataset.valid), ("test", dataset.test))
    }
    num_titles = max(title_of_item.values()) + 1
    return BaselineData(**splits, num_titles=num_titles, unseen=UnseenTitles(splits["train"], num_titles))


@dataclass(frozen=True, eq=False)
class Inputs:
    """All that a baseline is made from and trained on, but for its settings."""

    dataset: Dataset
    title_of_item: Mapping[int, int]
    """The title of each item, `Catalog.title_of_item` or `number_titles`; ids from 0 without gaps."""
    max_history: int
    """Longest history that is read."""
    llm: LLMParts | None = None
    """What a language model has said about the data, for baselines that need it."""

    @property
    def num_titles(self) -> int:
        return max(self.title_of_item.values()) + 1

    @cached_property
    def data(self) -> BaselineData:
        """The windows; made when they are first asked for."""
        return view(self.dataset, self.title_of_item, max_history=self.max_history)
