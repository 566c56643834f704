"""Predictions on disk: shards that are there and right are kept, others are decoded again, none is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bearray.errors import DataError, MissingFileError, ResumeError
from bearray.evaluation.predictions import (
    SCHEMA,
    missing_shards,
    open_predictions,
    read_predictions,
    shard_name,
    shard_rows,
    to_table,
    write_shard,
)
from bearray.runs import Storage
from bearray.task import Case

TOTAL, SIZE, BEAMS = 10, 4, 3
MANIFEST = {"split": "test", "rows": TOTAL, "shard_size": SIZE, "checkpoint": "somewhere", "config": "abc"}
ITEM_OF_TITLE = np.array([50, 51, 52, 53])


def cases(rows: range) -> list[Case]:
    return [
        Case(row=r, user=r // 2, prompt=[1], target_item=50 + r % 4, target_title=r % 4, warm=r % 3 == 0)
        for r in rows
    ]


def write(folder: Storage, number: int, rows: range | None = None) -> None:
    rows = shard_rows(number, SIZE, TOTAL) if rows is None else rows
    titles = np.array([[0, 1, -1]] * len(rows)).reshape(len(rows), BEAMS)
    scores = np.array([[-0.5, -1.25, -np.inf]] * len(rows), dtype=np.float32).reshape(len(rows), BEAMS)
    write_shard(folder, number, to_table(cases(rows), titles, scores, ITEM_OF_TITLE))


@pytest.fixture
def folder(tmp_path: Path) -> Storage:
    """Finished predictions of ten windows in three shards."""
    folder = Storage(str(tmp_path / "predictions"))
    open_predictions(folder, MANIFEST)
    for number in range(3):
        write(folder, number)
    return folder


def damage(folder: Storage, number: int, how: str) -> None:
    file = Path(folder.root) / shard_name(number)
    content = file.read_bytes()
    if how == "missing":
        file.unlink()
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif how == "garbled":
        file.write_bytes(content[:20] + b"\x00" * 40 + content[60:])
    elif how == "foreign":
        write(folder, number, shard_rows((number + 1) % 2, SIZE, TOTAL))
    elif how == "too short":
        write(folder, number, shard_rows(number, SIZE, TOTAL)[:-1])
    elif how == "other columns":
        pq.write_table(pq.read_table(file).drop_columns(["rank"]), file)
    else:
        raise AssertionError(how)


def test_shards_have_names_in_order_and_cover_each_row_once():
    assert [shard_name(n) for n in (0, 7, 12345)] == [
        "part-00000.parquet",
        "part-00007.parquet",
        "part-12345.parquet",
    ]
    assert [list(shard_rows(n, SIZE, TOTAL)) for n in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert list(shard_rows(2, 5, 10)) == []


def test_what_was_written_is_read_back(folder: Storage):
    assert folder.names() == ["manifest.json", *(shard_name(n) for n in range(3))]
    frame = read_predictions(folder)
    assert list(frame.columns) == SCHEMA.names
    assert frame["row"].tolist() == list(range(TOTAL))
    assert frame["user_id"].tolist() == [r // 2 for r in range(TOTAL)]
    assert frame["target"].tolist() == [50 + r % 4 for r in range(TOTAL)]
    assert frame["warm"].tolist() == [r % 3 == 0 for r in range(TOTAL)]
    assert [list(x) for x in frame["items"]] == [[50, 51, -1]] * TOTAL  # an empty place is no item
    assert [list(x) for x in frame["scores"]] == [[-0.5, -1.25, -np.inf]] * TOTAL
    assert frame["rank"].tolist() == [[0.0, 1.0, np.inf, np.inf][r % 4] for r in range(TOTAL)]
    assert pq.read_schema(Path(folder.root) / shard_name(0)).names == SCHEMA.names


@pytest.mark.parametrize(
    "how", ["missing", "empty", "truncated", "garbled", "foreign", "too short", "other columns"]
)
def test_a_shard_that_is_not_right_is_decoded_again_and_never_left_out(folder: Storage, how: str):
    assert missing_shards(folder, TOTAL, SIZE) == []
    damage(folder, 1, how)
    assert missing_shards(folder, TOTAL, SIZE) == [1]
    with pytest.raises(DataError, match=r"part-00001\.parquet is missing or damaged"):
        read_predictions(folder)
    write(folder, 1)
    assert missing_shards(folder, TOTAL, SIZE) == []
    assert len(read_predictions(folder)) == TOTAL


def test_a_new_folder_lacks_every_shard(tmp_path: Path):
    folder = Storage(str(tmp_path / "new"))
    assert missing_shards(folder, TOTAL, SIZE) == [0, 1, 2]
    with pytest.raises(MissingFileError, match=r"manifest\.json"):
        read_predictions(folder)


def test_a_folder_made_with_other_settings_is_refused_and_kept(folder: Storage):
    open_predictions(folder, dict(MANIFEST))  # the same again
    with pytest.raises(ResumeError, match=r"other settings \(checkpoint, rows\)"):
        open_predictions(folder, {**MANIFEST, "checkpoint": "elsewhere", "rows": 9})
    with pytest.raises(ResumeError, match=r"other settings \(extra\)"):
        open_predictions(folder, {**MANIFEST, "extra": 1})
    assert len(read_predictions(folder)) == TOTAL


def test_a_shard_of_no_windows_has_the_same_columns():
    table = to_table([], np.zeros((0, BEAMS), dtype=int), np.zeros((0, BEAMS)), ITEM_OF_TITLE)
    assert table.schema == SCHEMA and len(table) == 0
