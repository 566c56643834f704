"""Samples of every dump layout, written by the tests; the fields are those of the real files, the content is
invented."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bearray.data import dumps
from bearray.data.dumps import read_dump, read_records
from bearray.errors import DataError, MissingFileError

from .test_tables import decoded, titles

REVIEWS_2014 = [
    {"reviewerID": "A1", "asin": "0001", "reviewerName": "Ann \"A.\" O'N", "helpful": [2, 3],
     "reviewText": "Fine.",
     "overall": 5.0, "summary": "ok", "unixReviewTime": 1252800000, "reviewTime": "09 13, 2009"},
    {"reviewerID": "A2", "asin": "B00X", "helpful": [0, 0], "reviewText": "Naïve — but good", "overall": 3.0,
     "summary": "so so", "unixReviewTime": 1252886400, "reviewTime": "09 14, 2009"},
    {"reviewerID": "A1", "asin": "B00X", "helpful": [0, 0], "reviewText": "", "overall": 1.0, "summary": "",
     "unixReviewTime": 1252972800, "reviewTime": "09 15, 2009"},
]  # fmt: skip
REVIEWS_2018 = [
    {"overall": 5.0, "vote": "2", "verified": True, "reviewTime": "05 1, 2018", "reviewerID": "A1",
     "asin": "0001",
     "style": {"Format:": " Hardcover"}, "reviewerName": None, "reviewText": "x",
     "unixReviewTime": 1252800000},
    {"overall": 4.0, "verified": False, "reviewTime": "05 2, 2018", "reviewerID": "A2", "asin": "B00X",
     "unixReviewTime": 1252886400},
    {"overall": 4.0, "verified": False, "image": ["https://example.org/a.jpg"], "reviewTime": "05 3, 2018",
     "reviewerID": "A1", "asin": "B00X", "unixReviewTime": 1252972800},
]  # fmt: skip
METADATA_2014 = [
    {"asin": "0001", "title": "Kit's \"Own\" Book", "price": 2.5, "imUrl": "http://example.org/1.jpg",
     "related": {"also_bought": ["B00X"]}, "salesRank": {"Toys": 7}, "categories": [["Toys", "Games"]]},
    {"asin": "B00X", "title": "Salt &amp; Pepper", "categories": [["Kitchen"]]},
    {"asin": "UNSEEN", "title": "Never reviewed", "categories": [["Kitchen"]]},
]  # fmt: skip
METADATA_2018 = [
    {"category": ["Toys"], "tech1": "", "description": ["a"], "fit": "", "title": "Kit's \"Own\" Book",
     "also_buy": [],
     "rank": [">#7 in Toys"], "price": "$2.50", "asin": "0001", "details": {}, "similar_item": None},
    {"category": [], "title": "Salt &amp; Pepper", "rank": "1,2 in Kitchen", "asin": "B00X",
     "main_cat": "Kitchen"},
    {"category": [], "title": "Never reviewed", "asin": "UNSEEN"},
]  # fmt: skip
EVENTS = [("A1", "0001", 1252800000), ("A2", "B00X", 1252886400), ("A1", "B00X", 1252972800)]


def as_json(records: list[dict]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def as_python(records: list[dict]) -> str:
    return "".join(repr(record) + "\n" for record in records)


def write(file: Path, text: str) -> Path:
    data = text.encode()
    file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)
    return file


LAYOUTS = {
    "2014 reviews json, metadata python": (as_json(REVIEWS_2014), as_python(METADATA_2014)),
    "2014 all strict json": (as_json(REVIEWS_2014), as_json(METADATA_2014)),
    "2014 all python": (as_python(REVIEWS_2014), as_python(METADATA_2014)),
    "2018": (as_json(REVIEWS_2018), as_json(METADATA_2018)),
}


@pytest.mark.parametrize("suffix", [".json.gz", ".json"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(tmp_path: Path, layout: str, suffix: str) -> None:
    reviews, metadata = LAYOUTS[layout]
    source = read_dump(write(tmp_path / f"r{suffix}", reviews), write(tmp_path / f"m{suffix}", metadata))
    assert decoded(source) == EVENTS
    assert titles(source) == {"0001": 'Kit\'s "Own" Book', "B00X": "Salt &amp; Pepper"}


def test_chunks_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one record a chunk, and more chunks than are kept apart, the codes still agree."""
    monkeypatch.setattr(dumps, "CHUNK", 1)
    records = [
        {"reviewerID": f"U{n * 7 % 13}", "asin": f"I{n * 5 % 11}", "unixReviewTime": n} for n in range(100)
    ]
    products = [{"asin": f"I{n}", "title": f"Item {n}"} for n in range(40)]
    source = read_dump(
        write(tmp_path / "r.json", as_json(records)), write(tmp_path / "m.json", as_json(products))
    )
    assert decoded(source) == [(r["reviewerID"], r["asin"], r["unixReviewTime"]) for r in records]
    assert titles(source) == {f"I{n}": f"Item {n}" for n in range(11)}
    assert source.user_ids.to_pylist() == sorted({r["reviewerID"] for r in records})


def test_titles_that_are_missing_or_repeated(tmp_path: Path) -> None:
    products = [
        {"asin": "0001", "title": ""},
        {"asin": "0001", "title": "First"},
        {"asin": "0001", "title": "Second"},
        {"asin": "B00X"},
    ]
    reviews = write(tmp_path / "r.json", as_json(REVIEWS_2018))
    source = read_dump(reviews, write(tmp_path / "m.json", as_json(products)))
    assert titles(source) == {"0001": "First", "B00X": None}
    assert source.notes["metadata_repeated"] == 1


def test_nothing_is_executed(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    text = f"{{'asin': '0001', 'title': __import__('pathlib').Path({str(trap)!r}).touch()}}\n"
    with pytest.raises(
        DataError, match=r"m\.json, line 1: .* is neither a JSON object nor a Python dictionary"
    ):
        read_dump(write(tmp_path / "r.json", as_json(REVIEWS_2014)), write(tmp_path / "m.json", text))
    assert not trap.exists()


def test_a_file_may_change_its_mind(tmp_path: Path) -> None:
    """A Python literal that happens to be JSON does not decide for the lines after it."""
    text = (
        '{"asin": "0001", "title": "A"}\n\n'
        + "{'asin': 'B00X', 'title': \"B's\"}\n"
        + '{"asin": "C", "x": null}\n'
    )
    assert [(n, r["asin"]) for n, r in read_records(write(tmp_path / "m.json", text))] == [
        (1, "0001"),
        (3, "B00X"),
        (4, "C"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not a record", r"r\.json, line 4: 'not a record'"),
        ("[1, 2]", r"r\.json, line 4: '\[1, 2\]'"),
        ('{"reviewerID": "A"', r"r\.json, line 4"),
        ("(" * 10_000, r"r\.json, line 4"),
        ('{"reviewerID": "A", "unixReviewTime": 1}', r"r\.json, line 4: no field 'asin'; it has reviewerID"),
        ('{"asin": "A", "unixReviewTime": 1}', r"r\.json, line 4: no field 'reviewerID'"),
        ('{"reviewerID": "A", "asin": "B"}', r"r\.json, line 4: no field 'unixReviewTime'"),
        ('{"reviewerID": "A", "asin": "B", "unixReviewTime": "x"}', r"line 4: unixReviewTime is 'x'"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    reviews = write(tmp_path / "r.json", as_json(REVIEWS_2018) + line + "\n")
    metadata = write(tmp_path / "m.json", as_json(METADATA_2018))
    with pytest.raises(DataError, match=message):
        read_dump(reviews, metadata)


def test_truncated_gzip(tmp_path: Path) -> None:
    reviews = write(tmp_path / "r.json.gz", as_json(REVIEWS_2018 * 500))
    reviews.write_bytes(reviews.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"r\.json\.gz is damaged after line"):
        read_dump(reviews, write(tmp_path / "m.json", as_json(METADATA_2018)))


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(b'{"reviewerID": "\xff"}\n')
    with pytest.raises(DataError, match="damaged"):
        read_dump(tmp_path / "r.json", write(tmp_path / "m.json", as_json(METADATA_2018)))


def test_empty_reviews(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no reviews"):
        read_dump(write(tmp_path / "r.json", "\n"), write(tmp_path / "m.json", as_json(METADATA_2018)))


@pytest.mark.parametrize("missing", ["r.json", "m.json"])
def test_missing_file(tmp_path: Path, missing: str) -> None:
    write(tmp_path / "r.json", as_json(REVIEWS_2018))
    write(tmp_path / "m.json", as_json(METADATA_2018))
    (tmp_path / missing).unlink()
    with pytest.raises(MissingFileError, match=missing.replace(".", r"\.")):
        read_dump(tmp_path / "r.json", tmp_path / "m.json")


MEASURE = """
import resource, sys
from bearray.data.dumps import read_dump
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read_dump(sys.argv[1], sys.argv[2])
before = peak()
source = read_dump(sys.argv[3], sys.argv[2])
print(len(source.timestamp), peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    """600 MB of reviews, of which 16 bytes each and the ids may stay."""
    count, text = 150_000, "word " * 800
    big = tmp_path / "big.json.gz"
    with gzip.open(big, "wt", compresslevel=1) as out:
        for n in range(count):
            out.write(
                f'{{"reviewerID": "A{n % 5000}", "asin": "B{n % 777}", '
                f'"reviewText": "{text}", "unixReviewTime": {n}}}\n'
            )
    small = write(tmp_path / "r.json", as_json(REVIEWS_2018))
    metadata = write(tmp_path / "m.json", as_json(METADATA_2018))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(small), str(metadata), str(big)],
        capture_output=True,
        text=True,
        check=True,
    )
    rows, kib = map(int, done.stdout.split())
    assert rows == count
    assert kib < 80 * 1024, f"peak memory grew by {kib / 1024:.0f} MiB"
