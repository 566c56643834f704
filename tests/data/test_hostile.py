"""Raw data that a stranger made: every case here was found by `make fuzz`, or is a way out of a folder."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bearray.data import dumps, open_dataset
from bearray.data.download import download
from bearray.data.dumps import read_dump, read_records
from bearray.data.fetch import select_files
from bearray.data.folders import parse_ids
from bearray.data.prepare import prepare
from bearray.data.storage import locate
from bearray.data.tables import read_columns
from bearray.errors import DataError, MissingFileError
from tests.data.conftest import write_layout, write_windows

from .test_dumps import METADATA_2018, REVIEWS_2018, as_json

Layout = Callable[..., Path]


def dump(folder: Path, **changes: object) -> tuple[Path, Path]:
    """A dump whose second review is changed."""
    reviews, metadata = folder / "reviews.json", folder / "metadata.json"
    rows = [dict(row) for row in REVIEWS_2018]
    rows[1] |= changes
    reviews.write_text(as_json(rows))
    metadata.write_text(as_json(METADATA_2018))
    return reviews, metadata


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("unixReviewTime", float("inf"), "line 2: unixReviewTime is 'inf'"),
        ("unixReviewTime", 2**63, "line 2: unixReviewTime is '9223372036854775808'"),
        ("unixReviewTime", [], "line 2: unixReviewTime is '\\[\\]'"),
        ("reviewerID", "\ud800", r"line 2: .* is neither a JSON object"),
        ("reviewerID", {"a": 1}, "line 2: reviewerID is"),
        ("asin", [], "line 2: asin is '\\[\\]'"),
    ],
)
def test_values_that_no_review_has(tmp_path: Path, field: str, value: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_dump(*dump(tmp_path, **{field: value}))


@pytest.mark.parametrize(
    "line", ["[" * 100_000, "(" * 100_000, "-" * 100_000 + "1", "9**9**9", "{'a': open('x')}"]
)
def test_lines_that_break_a_parser(tmp_path: Path, line: str) -> None:
    reviews, metadata = dump(tmp_path)
    reviews.write_text(as_json(REVIEWS_2018) + line + "\n")
    with pytest.raises(DataError, match=r"line 4: .* neither a JSON object nor a Python dictionary"):
        read_dump(reviews, metadata)


def test_a_small_file_cannot_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dumps, "LONGEST_LINE", 1_000)
    file = tmp_path / "reviews.json.gz"
    file.write_bytes(gzip.compress(b'{"a": "' + b"x" * 10_000_000 + b'"}'))
    assert file.stat().st_size < 20_000
    with pytest.raises(DataError, match="line 1, is longer than 1,000 characters"):
        list(read_records(file))


def test_nothing_is_left_of_a_dump_that_was_refused(tmp_path: Path) -> None:
    reviews, metadata = dump(tmp_path, unixReviewTime=float("nan"))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError):
        prepare(tmp_path / "out", reviews=reviews, metadata=metadata)
    assert sorted(tmp_path.iterdir()) == before


# --- tables and data sets


def test_column_names_that_are_no_text_and_columns_twice(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(b"user_id,\xe9\n1,2\n")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_columns(file, {"user_id": None})
    file.write_text("user_id,user_id\n1,2\n")
    with pytest.raises(DataError, match="column 'user_id' is there more than once"):
        read_columns(file, {"user_id": None})


def test_numbers_beyond_64_bits(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "small")
    huge = pa.array([2**64 - 1] * 3, pa.uint64())
    write_windows(folder / "sequences_train.parquet", [(1, [1, 2], 5)] * 3, timestamp=huge)
    with pytest.raises(DataError, match="column 'timestamp' holds a number beyond 64 bits"):
        open_dataset(folder)
    with pytest.raises(ValueError, match="beyond 64 bits"):
        parse_ids(f"[1, {2**63}]")
    with pytest.raises(ValueError, match="is not a list"):
        parse_ids("[9**9**9, 1]")


def test_a_column_twice_in_a_data_set(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "small")
    table = pq.read_table(folder / "items.parquet")
    pq.write_table(table.append_column("title", table["title"]), folder / "items.parquet")
    with pytest.raises(DataError, match=r"items\.parquet.*Multiple matches.*title"):
        open_dataset(folder)


@pytest.mark.parametrize("kind", ["link to itself", "pipe", "folder"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    folder = write_layout(tmp_path / "small")
    file = folder / "items.parquet"
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to(file.name)
    with pytest.raises((DataError, MissingFileError), match=r"items\.parquet"):
        open_dataset(folder)
    link = tmp_path / "x.csv"
    link.symlink_to("x.csv")
    with pytest.raises((DataError, MissingFileError), match=r"x\.csv"):
        read_columns(link, {"a": None})


def test_a_zero_byte_in_a_path() -> None:
    with pytest.raises(DataError, match="zero byte"):
        locate("a\0b")


# --- what a server says


@pytest.mark.parametrize(
    "path",
    ["data/../train.csv", "data/toy/../../train.csv", "/data/toy/train.csv", "data/toy/a/train.csv",
     "data/toy/..\\train.csv", "data/toy/train.csv/..", "data/toy/.", "data/toy/train.csv\n"],
)  # fmt: skip
def test_names_that_lead_out_of_the_folder_are_no_files_of_the_data_set(path: str) -> None:
    entry = {"path": path, "type": "blob", "size": 1, "sha": "0" * 40}
    with pytest.raises(MissingFileError):
        select_files({"tree": [entry]}, "toy")


@pytest.mark.parametrize(
    "wrong", [{"size": "1"}, {"size": -1}, {"size": True}, {"sha": None}, {"sha": "../x"}]
)
def test_entries_without_size_and_hash(wrong: dict[str, object]) -> None:
    entry = {"path": "data/Toy/train.csv", "type": "blob", "size": 1, "sha": "0" * 40} | wrong
    with pytest.raises(DataError, match=r"data/Toy/train\.csv"):
        select_files({"tree": [entry]}, "toy")


def test_a_download_without_an_end_ends(tmp_path: Path) -> None:
    sent = 0

    class Endless(httpx.SyncByteStream):
        def __iter__(self):
            nonlocal sent
            while True:
                sent += 1000
                yield b"x" * 1000

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Endless())

    with (
        httpx.Client(transport=httpx.MockTransport(answer)) as client,
        pytest.raises(DataError, match="wrong content"),
    ):
        download(client, "http://mirror/f", tmp_path / "f", size=10_000, blob="0" * 40, attempts=1)
    assert sent < 1_000_000
    assert not list(tmp_path.iterdir())


def test_titles_that_are_half_a_character(tmp_path: Path) -> None:
    (tmp_path / "id2name.json").write_text(json.dumps({"1": "\ud800"}))
    with pytest.raises(DataError, match=r"id2name\.json cannot be read as JSON: .* half a character"):
        prepare(tmp_path / "out", csv_folder=tmp_path)
