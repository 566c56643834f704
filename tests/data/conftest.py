"""Small data sets on disk for the tests of bearray.data."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Row = tuple[int, list[int], int]
LAYOUT: dict[str, Any] = {
    "items": [(1, "Red Fox"), (2, "Blue Whale"), (3, "Red Panda"), (4, "Gray Wolf")],
    "train": [(10, [1, 2, 3], 100), (11, [2, 3], 200), (12, [4, 1], 300)],
    "valid": [(10, [2, 3, 4], 400)],
    "test": [(11, [3, 2, 1], 500), (12, [1, 2], 600), (13, [3, 4], 700)],
}


def write_windows(file: Path, rows: Sequence[Row], **columns: Any) -> None:
    """sequences_*.parquet; `columns` replace or add columns."""
    table = {
        "user_id": pa.array([row[0] for row in rows], pa.int32()),
        "item_ids": pa.array([row[1] for row in rows], pa.list_(pa.int32())),
        "timestamp": pa.array([row[2] for row in rows], pa.int64()),
    }
    table |= columns
    pq.write_table(pa.table({name: column for name, column in table.items() if column is not None}), file)


def write_layout(folder: Path, **changes: Any) -> Path:
    """A good data set; keyword arguments replace `items`, `train`, `valid` or `test`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = LAYOUT | changes
    items = content["items"]
    pq.write_table(
        pa.table(
            {
                "item_id": pa.array([item for item, _ in items], pa.int32()),
                "title": pa.array([title for _, title in items], pa.string()),
            }
        ),
        folder / "items.parquet",
    )
    for split in ("train", "valid", "test"):
        write_windows(folder / f"sequences_{split}.parquet", content[split])
    return folder


@pytest.fixture
def layout(tmp_path: Path) -> Callable[..., Path]:
    """Write a data set under the test's folder: `layout(train=[...])`."""

    def make(**changes: Any) -> Path:
        return write_layout(tmp_path / "small", **changes)

    return make


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """Path of a real data set; the test is skipped where it is not there."""

    def find(name: str) -> Path:
        root = os.environ.get("BEARRAY_DATA") or Path(__file__).parents[3] / "shared" / "data"
        folder = Path(root) / name
        if not folder.is_dir():
            pytest.skip(f"no data set {name} (set BEARRAY_DATA)")
        return folder

    return find
