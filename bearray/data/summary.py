"""Describe a data set in numbers."""

from __future__ import annotations

import html
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bearray.data.dataset import SPLITS, Dataset, open_dataset
from bearray.data.titles import clean_title


def check_dataset(path: str | Path, *, strict: bool = False) -> dict[str, Any]:
    """Open a data set with every check and say what it is.

    Returns:
        name, path, content_hash, windows (per split), notes (see `open_dataset`).

    Raises:
        MissingFileError, DataError: as `open_dataset`.
    """
    dataset = open_dataset(path, strict=strict)
    return {
        "name": dataset.name,
        "path": dataset.path,
        "content_hash": dataset.content_hash,
        "items": len(dataset.items),
        "windows": {split: len(dataset.split(split)) for split in SPLITS},
        "notes": dataset.notes,
    }


def dataset_stats(dataset: Dataset) -> dict[str, Any]:
    """The numbers to know about a data set, as plain JSON values.

    `interactions` are those the windows show: a user's longest window and one more for each further window.
    `cold_target_share` of a split is the share of its windows whose target is in no training window: an
    embedding of ids cannot know it, a title can be generated all the same.
    """
    frames = {split: dataset.split(split) for split in SPLITS}
    windows = pd.concat([frame[["user_id", "item_ids"]] for frame in frames.values()], ignore_index=True)
    lengths = windows["item_ids"].str.len()
    per_user = lengths.groupby(windows["user_id"]).agg(["max", "size"])
    interactions = int((per_user["max"] + per_user["size"] - 1).sum())
    used = set(windows["item_ids"].explode().tolist())
    trained = set(frames["train"]["item_ids"].explode().tolist())
    targets = {split: frame["item_ids"].str[-1] for split, frame in frames.items()}
    titles = dataset.items["title"].tolist()
    cleaned = [clean_title(title) for title in titles]
    per_title = Counter(cleaned)
    words = np.array([len(title.split()) for title in cleaned])
    users, items = len(per_user), len(titles)
    train_users = set(frames["train"]["user_id"])
    return {
        "name": dataset.name,
        "users": users,
        "items": items,
        "items_in_windows": len(used),
        "interactions": interactions,
        "density": interactions / (users * items),
        "windows": {split: len(frame) for split, frame in frames.items()},
        "window_lengths": dict(sorted(Counter(lengths.tolist()).items())),
        "distinct_targets": {split: int(column.nunique()) for split, column in targets.items()},
        "cold_target_share": {
            split: float((~targets[split].isin(trained)).mean()) for split in ("valid", "test")
        },
        "target_in_history_share": float(
            np.mean([row[-1] in row[:-1] for row in windows["item_ids"].tolist()])
        ),
        "test_users": int(frames["test"]["user_id"].nunique()),
        "test_users_seen_in_train": int(
            frames["test"].loc[lambda f: f["user_id"].isin(train_users), "user_id"].nunique()
        ),
        "items_sharing_a_title": sum(n for n in per_title.values() if n > 1),
        "distinct_titles": len(per_title),
        "titles_with_html_entities": sum(html.unescape(title) != title for title in titles),
        "titles_with_double_quotes": sum('"' in title for title in cleaned),
        "title_words": {
            "min": int(words.min()),
            "median": float(np.median(words)),
            "mean": float(words.mean()),
            "p95": float(np.quantile(words, 0.95)),
            "max": int(words.max()),
        },
        "timestamps": {
            split: [int(frame["timestamp"].min()), int(frame["timestamp"].max())]
            for split, frame in frames.items()
        },
        "notes": dataset.notes,
        "content_hash": dataset.content_hash,
    }
