"""Predictions on disk: what a row says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bearray.errors import DataError, MissingFileError
from bearray.evaluation.predictions import SCHEMA, predictions_in, read_predictions, to_table
from bearray.evaluation.shards import shard_name, write_shard
from bearray.runs import Storage
from bearray.task import Case

TOTAL, SIZE, BEAMS = 10, 4, 3
ITEM_OF_TITLE = np.array([50, 51, 52, 53])


def cases(rows: range) -> list[Case]:
    return [
        Case(row=r, user=r // 2, prompt=[1], target_item=50 + r % 4, target_title=r % 4, warm=r % 3 == 0)
        for r in rows
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Storage:
    """Finished predictions of ten windows in three shards."""
    folder = Storage(str(tmp_path / "predictions"))
    predictions_in(folder, TOTAL, SIZE).begin({"rows": TOTAL, "shard_size": SIZE})
    for number, rows in enumerate((range(4), range(4, 8), range(8, 10))):
        titles = np.array([[0, 1, -1]] * len(rows))
        scores = np.array([[-0.5, -1.25, -np.inf]] * len(rows), dtype=np.float32)
        write_shard(folder, number, to_table(cases(rows), titles, scores, ITEM_OF_TITLE))
    return folder


def test_what_was_written_is_read_back(folder: Storage):
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


def test_a_lost_shard_is_an_error_and_never_left_out(folder: Storage):
    (Path(folder.root) / shard_name(2)).unlink()
    with pytest.raises(DataError, match=r"part-00002\.parquet is missing"):
        read_predictions(folder)


def test_a_folder_without_a_manifest_holds_no_predictions(tmp_path: Path):
    with pytest.raises(MissingFileError, match=r"manifest\.json"):
        read_predictions(Storage(str(tmp_path)))


def test_a_shard_of_no_windows_has_the_same_columns():
    table = to_table([], np.zeros((0, BEAMS), dtype=int), np.zeros((0, BEAMS)), ITEM_OF_TITLE)
    assert table.schema == SCHEMA and len(table) == 0
