"""Predictions: what a row of them says, and the folder they stand in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from bearray.errors import DataError
from bearray.evaluation.shards import MANIFEST, ShardedTable
from bearray.recommend import target_ranks
from bearray.runs import Storage
from bearray.task import Case

SCHEMA = pa.schema(
    [
        ("row", pa.int32()),
        ("user_id", pa.int32()),
        ("target", pa.int32()),
        ("items", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float32())),
        ("rank", pa.float64()),
        ("warm", pa.bool_()),
    ]
)
"""row: number of the window in the sampled split; items and scores: best first, -1 and -inf where the search
returned fewer; rank: 0-based place of the target's title, inf for a miss; warm: the target occurs in
training."""

EXACT_SCHEMA = SCHEMA.append(pa.field("proven", pa.bool_()))
"""Of exact search; proven: the list is proven to be the true best one."""


def predictions_in(folder: Storage, total: int, size: int, *, exact: bool = False) -> ShardedTable:
    """The predictions of a split of `total` windows, in shards of `size`; `exact`: by exact search."""
    return ShardedTable(folder, EXACT_SCHEMA if exact else SCHEMA, range(total), size, "predictions")


def read_predictions(folder: Storage) -> pd.DataFrame:
    """All predictions of a finished evaluation, in the split's order.

    Raises:
        MissingFileError: the folder has no manifest.
        DataError: the manifest or a shard is missing or damaged; the message names it.
    """
    manifest = folder.read_json(MANIFEST)
    for name in ("rows", "shard_size"):
        if name not in manifest:
            raise DataError(f"{folder.root}/{MANIFEST} has no {name!r}; it is of no predictions")
    exact = manifest.get("decoding", {}).get("method") == "exact"
    return predictions_in(folder, manifest["rows"], manifest["shard_size"], exact=exact).read()


def to_table(
    cases: Sequence[Case],
    titles: np.ndarray,
    scores: np.ndarray,
    item_of_title: np.ndarray,
    *,
    proven: np.ndarray | None = None,
) -> pa.Table:
    """A shard's rows.

    Args:
        cases: the U decoded windows.
        titles: [U, B] title ids, -1 for none. scores: [U, B].
        item_of_title: [titles] the item that stands for each title.
        proven: [U] bool, of exact search.
    """
    items = np.where(titles >= 0, item_of_title[np.maximum(titles, 0)], -1)
    columns = {
        "row": [c.row for c in cases],
        "user_id": [c.user for c in cases],
        "target": [c.target_item for c in cases],
        "items": items.tolist(),
        "scores": scores.tolist(),
        "rank": target_ranks(cases, titles),
        "warm": [c.warm for c in cases],
    }
    if proven is None:
        return pa.table(columns, schema=SCHEMA)
    return pa.table(columns | {"proven": proven}, schema=EXACT_SCHEMA)
