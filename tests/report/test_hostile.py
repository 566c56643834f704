"""Run folders that a stranger made: each case was found by `make fuzz`, or writes where it must not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bearray.errors import DataError
from bearray.plain import printable
from bearray.report import collect, write_report
from bearray.report.figures import short
from bearray.report.formats import to_csv
from bearray.report.latex import tex
from bearray.report.markdown import md
from bearray.report.records import number
from tests.report.storage import write_run
from tests.report.test_pruning import summary, write_pruning


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "storage" / "runs" / "sft", method="SFT", n=20, users_count=10, epochs=1)


def change(file: Path, **entries: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


@pytest.mark.parametrize(
    ("file", "entries", "message"),
    [
        ("config.json", {"versions": "x"}, "versions is 'x'"),
        ("config.json", {"data_hash": 5}, "data_hash is 5"),
        ("config.json", {"run": {"decoding": 5}}, "run.decoding is 5"),
        ("config.json", {"run": {"train": {"seed": "x"}}}, "run.train.seed is 'x'"),
        ("config.json", {"run": {"decoding": {"beam_width": 0.5}}}, "run.decoding.beam_width is 0.5"),
        ("result.json", {"seconds": 3.5}, "seconds is 3.5"),
        ("result.json", {"test": {"trie": 1}}, "test.trie is 1"),
    ],
)
def test_entries_of_another_kind_are_named(
    run: Path, file: str, entries: dict[str, Any], message: str
) -> None:
    change(run / file, **entries)
    with pytest.raises(DataError, match=message.replace(".", r"\.")) as caught:
        write_report(run.parents[1])
    assert file in str(caught.value)
    assert not (run.parents[1] / "report" / "index.html").exists()


def test_metrics_whose_kind_is_a_list(run: Path) -> None:
    (run / "metrics.jsonl").write_text('{"kind": [], "step": 1}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 1"):
        collect(run.parents[1])


@pytest.mark.parametrize("column", [pa.array(["x"] * 20), pa.array([[0]] * 20), pa.array([b"\xff"] * 20)])
def test_predictions_of_another_type(run: Path, column: pa.Array) -> None:
    (shard,) = (run / "predictions").glob("*.parquet")
    table = pq.read_table(shard)
    pq.write_table(table.set_column(table.column_names.index("rank"), "rank", column), shard)
    with pytest.raises(DataError, match=r"\.parquet is damaged"):
        collect(run.parents[1])


def test_pipes_are_not_waited_for(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    os.mkfifo(run / "metrics.jsonl")
    with pytest.raises(DataError, match=r"metrics\.jsonl is not a file"):
        collect(run.parents[1])


@pytest.mark.parametrize(
    "settings", [{"split": "../../../../escaped"}, {"split": "x" * 300}, {"normalize": "x"}]
)
def test_a_pruning_analysis_names_no_file_of_its_own(run: Path, settings: dict[str, str]) -> None:
    """The split is part of a figure's file name."""
    write_pruning(run, summary(4), **settings)
    with pytest.raises(DataError, match=rf"summary\.json: settings\.{next(iter(settings))} is"):
        write_report(run.parents[1])


def test_a_gap_that_is_no_number(run: Path) -> None:
    write_pruning(run, {**summary(4), "cut_gap": {"median": {}, "q25": 0, "q75": 1}})
    with pytest.raises(DataError, match=r"summary\.json is damaged"):
        write_report(run.parents[1])


def test_a_report_that_fails_leaves_the_old_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = write_report(run.parents[1])
    old = {f: f.read_bytes() for f in page.parent.rglob("*") if f.is_file()}

    def fail(*arguments: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr("bearray.report.write.save", fail)
    change(run / "config.json", git="another")
    with pytest.raises(RuntimeError):
        write_report(run.parents[1])
    assert {f: f.read_bytes() for f in page.parent.rglob("*") if f.is_file()} == old


def test_huge_integers_are_no_numbers() -> None:
    assert number(10**400) is None and number(10**30) == 1e30


def test_characters_that_nobody_sees_are_shown() -> None:
    assert printable("a\u202eb\x00c\td\n") == "a\ufffdb\ufffdc d"
    assert tex("a\u202eb") == "a?b" and md("a\x07b") == "a\ufffdb"


@pytest.mark.parametrize(
    "cell", ["=1", "+1", "-1+1", "@x", "\t=1", "\r=1", "\n=1", " =1", "\uff1d1", "\u00a0@x"]
)
def test_no_cell_and_no_header_is_a_formula(cell: str) -> None:
    for line in to_csv([cell], [[cell]]).splitlines():
        assert line.startswith("'")
    assert to_csv(["a"], [[-0.5]]) == "a\n-0.5\n"


def test_wide_letters_take_more_room() -> None:
    assert short("a" * 22) == "a" * 22
    assert len(short("W" * 22)) == 14 and short("W" * 22).endswith("…")
    assert len(short("日" * 22)) == 11
