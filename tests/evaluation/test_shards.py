"""Tables in shards: those that are there and right are kept, others are made again, none is lost."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bearray.errors import DataError, ResumeError
from bearray.evaluation.shards import ShardedTable, shard_name, write_shard
from bearray.runs import Storage

SIZE = 4
ROWS = [1, 2, 5, 7, 8, 9, 11, 14, 15, 20]
"""Not all windows of a split, as where a sample of them is measured."""
SCHEMA = pa.schema([("row", pa.int32()), ("value", pa.float64()), ("list", pa.list_(pa.int64()))])
MANIFEST = {"split": "test", "rows": len(ROWS), "decoding": {"beam_width": 10}}


def write(folder: Storage, number: int, rows: list[int]) -> None:
    columns = {"row": rows, "value": [r / 4 for r in rows], "list": [list(range(r)) for r in rows]}
    write_shard(folder, number, pa.table(columns, schema=SCHEMA))


@pytest.fixture
def table(tmp_path: Path) -> ShardedTable:
    """A finished table of ten rows in three shards."""
    made = ShardedTable(Storage(str(tmp_path / "table")), SCHEMA, ROWS, SIZE, "measurements")
    made.begin(MANIFEST)
    for number in range(3):
        write(made.folder, number, ROWS[4 * number : 4 * number + 4])
    return made


def damage(table: ShardedTable, number: int, how: str) -> None:
    file = Path(table.folder.root) / shard_name(number)
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
        write(table.folder, number, ROWS[:4])
    elif how == "too short":
        write(table.folder, number, ROWS[4:7])
    elif how == "other columns":
        pq.write_table(pq.read_table(file).drop_columns(["value"]), file)
    else:
        raise AssertionError(how)


def test_shards_have_names_in_order_and_cover_each_row_once(table: ShardedTable) -> None:
    assert [shard_name(n) for n in (0, 7, 12345)] == [
        "part-00000.parquet",
        "part-00007.parquet",
        "part-12345.parquet",
    ]
    assert table.shards == 3
    assert [list(table.rows_of(n)) for n in range(3)] == [[1, 2, 5, 7], [8, 9, 11, 14], [15, 20]]
    whole = ShardedTable(table.folder, SCHEMA, range(8), SIZE, "measurements")
    assert whole.shards == 2 and list(whole.rows_of(1)) == [4, 5, 6, 7]


def test_what_was_written_is_read_back(table: ShardedTable) -> None:
    assert table.folder.names() == ["manifest.json", *(shard_name(n) for n in range(3))]
    frame = table.read()
    assert list(frame.columns) == SCHEMA.names
    assert frame["row"].tolist() == ROWS
    assert frame["value"].tolist() == [r / 4 for r in ROWS]
    assert [list(x) for x in frame["list"]] == [list(range(r)) for r in ROWS]


@pytest.mark.parametrize(
    "how", ["missing", "empty", "truncated", "garbled", "foreign", "too short", "other columns"]
)
def test_a_shard_that_is_not_right_is_made_again_and_never_left_out(table: ShardedTable, how: str) -> None:
    assert table.missing() == []
    damage(table, 1, how)
    assert table.missing() == [1]
    with pytest.raises(DataError, match=r"part-00001\.parquet is missing or damaged.*measurements"):
        table.read()
    write(table.folder, 1, ROWS[4:8])
    assert table.missing() == []
    assert len(table.read()) == len(ROWS)


def test_a_new_folder_lacks_every_shard(tmp_path: Path) -> None:
    new = ShardedTable(Storage(str(tmp_path / "new")), SCHEMA, ROWS, SIZE, "measurements")
    assert new.missing() == [0, 1, 2]
    with pytest.raises(DataError, match="part-00000"):
        new.read()


def test_a_folder_made_with_other_settings_is_refused_and_kept(table: ShardedTable) -> None:
    table.begin(dict(MANIFEST))  # the same again
    with pytest.raises(ResumeError, match=r"measurements made with other settings \(rows: 10 -> 9\)"):
        table.begin({**MANIFEST, "rows": 9})
    with pytest.raises(ResumeError, match=r"decoding\.beam_width: 10 -> 5; extra: None -> 1"):
        table.begin({**MANIFEST, "decoding": {"beam_width": 5}, "extra": 1})
    assert table.folder.read_json("manifest.json") == MANIFEST
    assert len(table.read()) == len(ROWS)


def test_what_shards_took_is_added_up(table: ShardedTable) -> None:
    assert table.read().attrs == {}  # nobody has said
    file = pq.read_table(Path(table.folder.root) / shard_name(0))
    for number, seconds in enumerate((0.25, 0.5, 1.0)):
        rows = ROWS[4 * number : 4 * number + 4]
        columns = {"row": rows, "value": [r / 4 for r in rows], "list": [list(range(r)) for r in rows]}
        write_shard(table.folder, number, pa.table(columns, schema=SCHEMA), seconds=seconds)
    frame = table.read()
    assert frame.attrs == {"seconds": 1.75}
    assert frame["row"].tolist() == ROWS and frame["value"].tolist()[:4] == file["value"].to_pylist()
