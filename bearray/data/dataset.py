"""Open a data set from disk, checked: items.parquet and sequences_{train,valid,test}.parquet."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from bearray.data.checks import (
    check_known,
    check_order,
    read_items,
    read_windows,
    timestamp_resolution,
)
from bearray.data.storage import exists, locate, read_parquet
from bearray.data.titles import clean_title
from bearray.data.windows import Int64, Windows
from bearray.errors import ConfigError, DataError, MissingFileError

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A checked data set: every item has a title, every window a history, every id is an item's."""

    name: str
    """The folder's name."""
    path: str
    """The folder or URI it was read from."""
    items: pd.DataFrame
    """item_id (int32, distinct), title (as in the file, see `clean_title`)."""
    train: pd.DataFrame
    """user_id, item_ids (a list: the history and, last, the target), timestamp (of the target), and the
    published sample marks (`in_train_10000`, ...) where the file has them. One row a window, in file
    order."""
    valid: pd.DataFrame
    """As `train`."""
    test: pd.DataFrame
    """As `train`."""
    notes: dict[str, int]
    """What was left out or is worth knowing, as counts; see `open_dataset`."""
    content_hash: str
    """Hex digest of the items and windows above (not of the files' bytes, names or extra columns)."""

    def split(self, name: Split) -> pd.DataFrame:
        """The windows of "train", "valid" or "test".

        Raises:
            ConfigError: another name.
        """
        if name not in SPLITS:
            raise ConfigError(f"split is {name!r}; it must be one of {', '.join(SPLITS)}")
        frame: pd.DataFrame = getattr(self, name)
        return frame

    def sample(self, split: Split, n: int | None, seed: int) -> pd.DataFrame:
        """At most n windows of a split, in file order, with a fresh index 0, 1, 2, ...

        For the training split the published sample is taken when the file marks one of size n
        (column `in_train_{n}`); it can be smaller than n where the data set moved part of the published
        training file to validation (Book). Otherwise n windows are drawn without replacement; equal
        seeds give equal samples. None, or an n that is not below the number of windows, gives all of them.

        Raises:
            ConfigError: an unknown split, or n below 1.
        """
        frame = self.split(split)
        if n is not None and n < 1:
            raise ConfigError(
                f"the number of {split} windows is {n}; it must be None (all of them) or at least 1"
            )
        mark = f"in_train_{n}"
        if split == "train" and mark in frame.columns and frame[mark].any():
            return frame[frame[mark]].reset_index(drop=True)
        if n is None or n >= len(frame):
            return frame.reset_index(drop=True)
        rows = np.sort(np.random.default_rng(seed).choice(len(frame), size=n, replace=False))
        return frame.iloc[rows].reset_index(drop=True)


def open_dataset(path: str | Path, *, strict: bool = False) -> Dataset:
    """Read and check a data set.

    Items whose title is missing or blank leave the catalogue and the histories; windows that target one, or
    whose history held nothing else, are dropped. `notes` counts:

    - `untitled_items`, `windows_dropped_untitled_target`, `windows_dropped_empty_history`,
      `windows_shortened` (kept, with a shorter history);
    - `items_sharing_a_title` (of the titles that more than one item has, once cleaned: one path in the trie);
    - `valid_windows_older_than_train` (allowed, but a validation split is better cut by time, as the test
      split is).

    Args:
        path: a folder, or a URI of pyarrow.fs ("s3://bucket/folder", "file:///folder").
        strict: an item without a title is an error.

    Raises:
        MissingFileError: the folder or one of its four files does not exist.
        DataError: a missing or mistyped column, a null, a repeated or unknown item id, an empty split, a
            window without a history, a test window older than the newest training window by more than the
            timestamps' resolution, no item with a title; under `strict` an item without one. The message
            names file, row (counted from 0) and value.
    """
    system, base = locate(path)
    if not exists(system, base):
        raise MissingFileError(
            f"{path} does not exist; it must be a folder with items.parquet and sequences_*.parquet"
        )
    items_file = f"{base}/items.parquet"
    ids, titles = read_items(read_parquet(system, items_file), items_file)
    files = {split: f"{base}/sequences_{split}.parquet" for split in SPLITS}
    splits = {split: read_windows(read_parquet(system, file), file) for split, file in files.items()}
    for windows in splits.values():
        check_known(windows, ids, items_file)
    resolution = timestamp_resolution(*(w.timestamp for w in splits.values()))
    check_order(splits["train"], splits["test"], resolution)

    has_title = np.array([bool(clean_title(title)) for title in titles])
    notes = Counter(untitled_items=int((~has_title).sum()))
    if not has_title.any():
        raise DataError(
            f"{items_file}: none of its {len(ids)} items has a title; bearray recommends by title"
        )
    if strict and not has_title.all():
        row = int(np.argmin(has_title))
        raise DataError(
            f"{items_file}, row {row}: item {ids[row]} has the title {titles[row]!r}; "
            f"{notes['untitled_items']} items have none, which strict mode does not allow"
        )
    for split in SPLITS:
        splits[split], dropped = _without(splits[split], ids[~has_title])
        notes.update(dropped)

    kept_titles = [title or "" for title, keep in zip(titles, has_title, strict=True) if keep]
    per_title = Counter(clean_title(title) for title in kept_titles)
    notes["items_sharing_a_title"] = sum(n for n in per_title.values() if n > 1)
    newest = int(splits["train"].timestamp.max())
    notes["valid_windows_older_than_train"] = int((splits["valid"].timestamp < newest - resolution).sum())
    items = pd.DataFrame({"item_id": ids[has_title].astype(np.int32), "title": kept_titles})
    return Dataset(
        name=base.rsplit("/", 1)[-1],
        path=str(path) if "://" in str(path) else base,
        items=items,
        train=_frame(splits["train"]),
        valid=_frame(splits["valid"]),
        test=_frame(splits["test"]),
        notes=dict(notes),
        content_hash=_content_hash(ids[has_title], kept_titles, splits),
    )


def _without(windows: Windows, untitled: Int64) -> tuple[Windows, dict[str, int]]:
    """The windows without the untitled items, and how many windows that cost."""
    keep_item = ~np.isin(windows.items, untitled)
    kept = np.concatenate(([0], np.cumsum(keep_item)))
    counts = kept[windows.offsets[1:]] - kept[windows.offsets[:-1]]
    target = keep_item[windows.offsets[1:] - 1]
    empty = target & (counts < 2)
    keep_window = target & ~empty
    if not keep_window.any():
        raise DataError(f"{windows.file}: no window is left once items without a title are dropped")
    dropped = {
        "windows_dropped_untitled_target": int((~target).sum()),
        "windows_dropped_empty_history": int(empty.sum()),
        "windows_shortened": int((counts < np.diff(windows.offsets))[keep_window].sum()),
    }
    return windows.where(keep_item, keep_window), dropped


def _frame(windows: Windows) -> pd.DataFrame:
    flat, bounds = windows.items.tolist(), windows.offsets.tolist()
    lists = [flat[a:b] for a, b in pairwise(bounds)]
    frame = pd.DataFrame(
        {
            "user_id": windows.user_id.astype(np.int32),
            "item_ids": pd.Series(lists, dtype=object),
            "timestamp": windows.timestamp,
        }
    )
    return frame.assign(**windows.flags)


def _content_hash(ids: Int64, titles: list[str], splits: dict[Split, Windows]) -> str:
    """SHA-256 over the content in a fixed byte order; about 10 ms for 50,000 windows."""
    digest = hashlib.sha256(b"bearray data 1")

    def add(label: str, data: bytes) -> None:
        digest.update(f"{label}:{len(data)}:".encode())
        digest.update(data)

    add("ids", ids.astype("<i8").tobytes())
    add("titles", json.dumps(titles, ensure_ascii=True).encode())
    for split, windows in splits.items():
        for field in ("user_id", "offsets", "items", "timestamp"):
            add(f"{split}.{field}", getattr(windows, field).astype("<i8").tobytes())
        for name in sorted(windows.flags):
            if re.fullmatch(r"in_train_\d+", name):
                add(f"{split}.{name}", windows.flags[name].astype("u1").tobytes())
    return digest.hexdigest()
