from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bearray.data.source import Source
from bearray.data.tables import read_tables
from bearray.errors import DataError, MissingFileError

Tables = Callable[..., tuple[Path, Path]]
EVENTS = {"user_id": ["u2", "u1", "u2"], "item_id": ["b", "a", "a"], "timestamp": [30, 10, 20]}
TITLES = {"item_id": ["b", "a", "c"], "title": ["Bee", "Ant", ""]}


def decoded(source: Source) -> list[tuple[object, object, int]]:
    users, items = source.user_ids.to_pylist(), source.item_ids.to_pylist()
    rows = zip(source.user_code.tolist(), source.item_code.tolist(), source.timestamp.tolist(), strict=True)
    return [(users[u], items[i], t) for u, i, t in rows]


def titles(source: Source) -> dict[object, str | None]:
    return dict(zip(source.item_ids.to_pylist(), source.titles.to_pylist(), strict=True))


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    def make(
        events: dict[str, list] | None = None, items: dict[str, list] | None = None, suffix: str = ".csv"
    ) -> tuple[Path, Path]:
        files = tmp_path / f"events{suffix}", tmp_path / f"items{suffix}"
        for file, content in zip(files, (events or EVENTS, items or TITLES), strict=True):
            frame = pd.DataFrame(content)
            if suffix == ".parquet":
                frame.to_parquet(file)
            else:
                frame.to_csv(file, index=False, sep="\t" if ".tsv" in suffix else ",")
        return files

    return make


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet"])
def test_every_format_reads_the_same(tables: Tables, suffix: str) -> None:
    source = read_tables(*tables(suffix=suffix))
    assert decoded(source) == [("u2", "b", 30), ("u1", "a", 10), ("u2", "a", 20)]
    assert titles(source) == {"a": "Ant", "b": "Bee", "c": ""}


def test_uri(tables: Tables) -> None:
    events, items = tables()
    assert decoded(read_tables(f"file://{events}", items)) == decoded(read_tables(events, items))


def test_integer_ids_stay_integers(tables: Tables) -> None:
    events = {"user_id": [7, 8], "item_id": [300, 2], "timestamp": [1, 2]}
    source = read_tables(*tables(events, {"item_id": [2, 300], "title": ["x", "y"]}))
    assert decoded(source) == [(7, 300, 1), (8, 2, 2)]
    assert pa.types.is_integer(source.item_ids.type)


def test_leading_zeros_are_part_of_an_id(tables: Tables) -> None:
    events = {"user_id": ["1", "01"], "item_id": ["007", "7"], "timestamp": [1, 2]}
    source = read_tables(*tables(events, {"item_id": ["7", "007"], "title": ["seven", "agent"]}))
    assert decoded(source) == [("1", "007", 1), ("01", "7", 2)]
    assert titles(source) == {"007": "agent", "7": "seven"}


def test_numbers_meet_text(tables: Tables, tmp_path: Path) -> None:
    """Interactions with numbers only, items with a letter in one id: both columns are text then."""
    events = {"user_id": [1, 2], "item_id": [10, 11], "timestamp": [1, 2]}
    source = read_tables(
        *tables(events, {"item_id": ["10", "11", "x1"], "title": ["a", "b", "c"]}, ".parquet")
    )
    assert decoded(source) == [(1, "10", 1), (2, "11", 2)]


def test_quoted_titles(tmp_path: Path, tables: Tables) -> None:
    events, items = tables()
    items.write_text('item_id,title\nb,"Bee, the ""Best"""\na,"Two\nlines"\n')
    assert titles(read_tables(events, items)) == {"a": "Two\nlines", "b": 'Bee, the "Best"'}


@pytest.mark.parametrize("name", ["NA", "null", "None", "nan", "123", "1e5"])
def test_a_title_is_text_whatever_it_looks_like(tables: Tables, name: str) -> None:
    events, items = tables()
    items.write_text(f"item_id,title\na,{name}\nb,{name}\n")
    assert titles(read_tables(events, items)) == {"a": name, "b": name}


@pytest.mark.parametrize("written", ["2020-01-02", "2020-01-02 00:00:00", "2020-01-02T00:00:00Z"])
def test_dates_become_seconds(tables: Tables, written: str) -> None:
    events, items = tables()
    events.write_text(f"user_id,item_id,timestamp\nu,a,{written}\n")
    assert read_tables(events, items).timestamp.tolist() == [1_577_923_200]


def test_whole_floats_are_times(tables: Tables) -> None:
    events, items = tables({**EVENTS, "timestamp": [1.0, 2.0, 3.0]}, suffix=".parquet")
    assert read_tables(events, items).timestamp.tolist() == [1, 2, 3]


def but(**columns: list) -> dict[str, list]:
    return EVENTS | columns


BAD: dict[str, tuple[dict | None, dict | None, str]] = {
    "no user column": (
        {"user": ["u"], "item_id": ["a"], "timestamp": [1]},
        None,
        r"events.csv: no column 'user_id'; it has user",
    ),
    "no time column": ({"user_id": ["u"], "item_id": ["a"]}, None, r"events.csv: no column 'timestamp'"),
    "no title column": (
        None,
        {"item_id": ["a"], "name": ["x"]},
        r"items.csv: no column 'title'; it has item_id, name",
    ),
    "unknown item": (
        but(item_id=["b", "a", "zz"]),
        None,
        r"events.csv, row 2: item_id 'zz' is not in .*items.csv",
    ),
    "repeated item": (
        None,
        {"item_id": ["a", "b", "a"], "title": ["x", "y", "z"]},
        r"items.csv, row 2: item_id 'a' is there twice",
    ),
    "empty id": (but(item_id=["b", None, "a"]), None, r"events.csv, row 1: item_id is empty"),
    "empty user": (but(user_id=["b", None, "a"]), None, r"events.csv, row 1: user_id is empty"),
    "empty time": (but(timestamp=[1, None, 2]), None, r"events.csv, row 1: timestamp is empty"),
    "no such time": (but(timestamp=[1.5, 2, 2]), None, r"row 0: timestamp is .*1.5.*whole number"),
    "text time": (but(timestamp=["soon", "1", "2"]), None, r"events.csv: column 'timestamp' .*'soon'"),
    "no rows": ({"user_id": [], "item_id": [], "timestamp": []}, None, r"events.csv has no rows"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables(tables: Tables, case: str) -> None:
    events, items, message = BAD[case]
    with pytest.raises(DataError, match=message):
        read_tables(*tables(events, items))


def test_float_ids_are_refused(tables: Tables) -> None:
    events, items = tables({**EVENTS, "user_id": [1.0, 2.0, 3.0]}, suffix=".parquet")
    with pytest.raises(DataError, match="'user_id' has type double"):
        read_tables(events, items)


def test_numeric_titles_are_refused(tables: Tables) -> None:
    with pytest.raises(DataError, match="'title' has type int64; it must be text"):
        read_tables(*tables(items={"item_id": ["a", "b"], "title": [1, 2]}, suffix=".parquet"))


def test_missing_file(tables: Tables, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"nothing\.csv does not exist"):
        read_tables(tmp_path / "nothing.csv", tables()[1])


def test_unknown_ending(tables: Tables, tmp_path: Path) -> None:
    (tmp_path / "events.xlsx").write_text("")
    with pytest.raises(DataError, match=r"must end in one of \.csv"):
        read_tables(tmp_path / "events.xlsx", tables()[1])


def test_ragged_csv(tables: Tables) -> None:
    events, items = tables()
    events.write_text("user_id,item_id,timestamp\nu,a,1\nu,a\n")
    with pytest.raises(DataError, match=r"events\.csv cannot be read as CSV: .*3 columns, got 2"):
        read_tables(events, items)


def test_damaged_gzip(tables: Tables) -> None:
    events, items = tables(suffix=".csv.gz")
    events.write_bytes(gzip.compress(b"user_id,item_id,timestamp\n" + b"u,a,1\n" * 5_000)[:-30])
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_tables(events, items)


def test_dictionary_encoded_text(tables: Tables) -> None:
    events, items = tables(suffix=".parquet")
    table = pq.read_table(events)
    pq.write_table(
        table.set_column(0, "user_id", table["user_id"].cast(pa.string()).dictionary_encode()), events
    )
    assert decoded(read_tables(events, items))[0] == ("u2", "b", 30)
