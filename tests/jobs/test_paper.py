"""How far the paper's sweeps are, from their common storage."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bearray import cli
from bearray.errors import BearrayError, DataError
from bearray.jobs.answer import progress as head_answers
from bearray.jobs.paper import PaperProgress, any_from_dict, read_any
from bearray.jobs.show import progress_lines
from bearray.paper.stored import sweeps_in
from bearray.runs import Storage
from tests.jobs.stored import PART, make_paper
from tests.paper.storage import DEMO, LLARA, SAMPLE, TOY, write_paper


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    return make_paper(tmp_path / "paper")


def test_parts_baselines_and_document(paper: Path) -> None:
    found = read_any(str(paper))
    assert isinstance(found, PaperProgress)
    assert [sweep.storage for sweep in found.sweeps] == [
        f"{paper}/{PART}",
        f"{paper}/{PART}/sensitivity",
    ]
    assert [len(sweep.runs) for sweep in found.sweeps] == [3, 0]
    assert found.waiting == ["demo/llara-local-tiny"]
    (baselines,) = found.baselines
    assert (baselines.name, baselines.states, baselines.total) == ("demo", {"finished": 1, "going on": 1}, 2)
    assert found.document
    assert any_from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_in_words(paper: Path) -> None:
    lines = list(progress_lines(read_any(str(paper))))
    assert lines[:5] == [
        f"paper in {paper}",
        "  baselines of demo: 1 of 2 finished, 1 going on",
        "  demo/llara-local-tiny: not begun",
        "  document written",
        PART,
    ]
    at = lines.index(f"{PART}/sensitivity")
    assert lines[at + 1 :] == ["  methods  0 of 2 finished, 2 waiting"]  # it is not tested, and not reported


def test_the_command(paper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["jobs", "status", "--storage", str(paper)]) == 0
    assert "methods  1 of 2 finished" in capsys.readouterr().out
    assert cli.run(["jobs", "status", "--storage", str(paper), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["sweeps"]) == 2


def test_the_head_answers_for_a_paper_too(paper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = SimpleNamespace(stdout="")  # of `ray status`
    monkeypatch.setattr("bearray.jobs.answer.subprocess.run", lambda *_, **__: status)
    answer = json.loads(json.dumps(head_answers(str(paper))))
    assert answer["reason"] is None and any_from_dict(answer["progress"]) == read_any(str(paper))


def test_each_part_is_a_sweep_of_its_own(paper: Path) -> None:
    assert read_any(f"{paper}/{PART}").to_dict()["runs"]


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"data": {}}, "has no 'config'"),
        ({"config": {}, "data": 3}, "data is 3"),
        ({"config": {"seeds": "x"}, "data": {}}, "seeds"),
        ({"config": {}, "data": {"../..": {}}}, "may not lead out"),
        ({"config": {}, "data": {"/etc": {}}}, "may not lead out"),
    ],
)
def test_a_damaged_record_is_named(paper: Path, record: dict[str, Any], told: str) -> None:
    (paper / "paper.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(BearrayError, match=told):
        read_any(str(paper))


@pytest.mark.parametrize("change", [{"sweeps": [3]}, {"baselines": [{"name": "x"}]}, {"surprise": 1}])
def test_another_versions_answer_is_no_traceback(paper: Path, change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="ray up"):
        any_from_dict(read_any(str(paper)).to_dict() | change)


def test_the_layout_is_what_the_paper_writes(tmp_path: Path) -> None:
    config = write_paper(tmp_path)
    parts = [part.folder for part in (TOY, DEMO, SAMPLE, LLARA)]
    for folder in (*parts, f"{TOY.folder}/sensitivity"):
        Storage(config.storage).write_json(f"{folder}/sweep.json", {})
    assert sorted(sweeps_in(Storage(config.storage))) == sorted([*parts, f"{TOY.folder}/sensitivity"])
