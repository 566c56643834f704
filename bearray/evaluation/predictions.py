"""Predictions on disk: one Parquet file a shard, a manifest that says what they are predictions of.

A shard is the unit of resumption: a file that is there, complete, and of the manifest's settings is not
decoded again. Counts are checked when predictions are read, so a lost shard is an error and never a
smaller mean.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bearray.errors import DataError, ResumeError
from bearray.recommend import target_ranks
from bearray.runs import Storage
from bearray.task import Case

MANIFEST = "manifest.json"

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


def shard_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def shard_rows(number: int, size: int, total: int) -> range:
    return range(number * size, min(total, (number + 1) * size))


def to_table(
    cases: Sequence[Case], titles: np.ndarray, scores: np.ndarray, item_of_title: np.ndarray
) -> pa.Table:
    """A shard's rows.

    Args:
        cases: the U decoded windows.
        titles: [U, B] title ids, -1 for none. scores: [U, B].
        item_of_title: [titles] the item that stands for each title.
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
    return pa.table(columns, schema=SCHEMA)


def write_shard(folder: Storage, number: int, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    folder.write_bytes(shard_name(number), buffer.getvalue())


def _read_shard(folder: Storage, number: int, rows: range) -> pd.DataFrame | None:
    """The shard, or None where it is missing, damaged or of other rows."""
    name = shard_name(number)
    if not folder.exists(name):
        return None
    try:
        table = pq.read_table(io.BytesIO(folder.read_bytes(name)))
    except (pa.ArrowException, OSError):
        return None  # cut off by a full disk or a crash of the storage: decode it again
    if table.schema.names != SCHEMA.names or table.column("row").to_pylist() != list(rows):
        return None
    return table.to_pandas()


def open_predictions(folder: Storage, manifest: dict[str, Any]) -> None:
    """Start a folder of predictions, or continue one that was made with the same settings.

    Raises:
        ResumeError: it holds predictions of another model or other settings.
    """
    if not folder.exists(MANIFEST):
        folder.write_json(MANIFEST, manifest)
        return
    old = folder.read_json(MANIFEST)
    if old != manifest:
        changed = [k for k in sorted({*old, *manifest}) if old.get(k) != manifest.get(k)]
        raise ResumeError(
            f"{folder.root} holds predictions made with other settings ({', '.join(changed)}); "
            "delete the folder or evaluate into another one"
        )


def missing_shards(folder: Storage, total: int, size: int) -> list[int]:
    """Numbers of the shards that still have to be decoded."""
    numbers = range(-(-total // size))
    return [i for i in numbers if _read_shard(folder, i, shard_rows(i, size, total)) is None]


def read_predictions(folder: Storage) -> pd.DataFrame:
    """All predictions of a finished evaluation, in the split's order.

    Raises:
        DataError: a shard is missing or damaged; the message names it.
    """
    manifest = folder.read_json(MANIFEST)
    total, size = manifest["rows"], manifest["shard_size"]
    shards = []
    for number in range(-(-total // size)):
        shard = _read_shard(folder, number, shard_rows(number, size, total))
        if shard is None:
            raise DataError(
                f"{folder.root}/{shard_name(number)} is missing or damaged; run the evaluation again"
            )
        shards.append(shard)
    return pd.concat(shards, ignore_index=True)
