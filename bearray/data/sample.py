"""A data set of some users of another one, for studies of what costs too much on all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bearray.data.dataset import SPLITS, Dataset, Split
from bearray.data.windows import Windows
from bearray.data.write import items_table, write_dataset
from bearray.errors import ConfigError


def sample_users(dataset: Dataset, users: int, out: Path, *, seed: int = 42) -> Path:
    """Write the windows of some users, with the whole catalogue.

    Args:
        dataset: where they are drawn from, without replacement.
        users: how many; all of them where there are fewer.
        out: the folder to create.
        seed: of the draw; equal seeds give equal samples.

    Returns:
        The absolute path of the folder.

    Raises:
        ConfigError: users below 1.
        DataError: a split would be empty; the message names it.
        StorageError: the folder cannot be written.
    """
    if users < 1:
        raise ConfigError(f"users is {users}; it must be at least 1")
    frames: dict[Split, pd.DataFrame] = {split: dataset.split(split) for split in SPLITS}
    drawn = np.random.default_rng(seed).permutation(all_users(dataset))[:users]
    kept = {split: frame[frame["user_id"].isin(drawn)] for split, frame in frames.items()}
    items = items_table(dataset.items["item_id"].to_numpy(), dataset.items["title"].tolist())
    return write_dataset(out, items, {split: _windows(frame) for split, frame in kept.items()})


def all_users(dataset: Dataset) -> np.ndarray:
    """[U] the users of all splits, each once."""
    return np.unique(np.concatenate([dataset.split(split)["user_id"].to_numpy() for split in SPLITS]))


def _windows(frame: pd.DataFrame) -> Windows:
    lists: Sequence[Sequence[int]] = frame["item_ids"].tolist()
    lengths = [len(items) for items in lists]
    return Windows(
        user_id=frame["user_id"].to_numpy(dtype=np.int64),
        offsets=np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))),
        items=np.array([item for items in lists for item in items], dtype=np.int64),
        timestamp=frame["timestamp"].to_numpy(dtype=np.int64),
    )
