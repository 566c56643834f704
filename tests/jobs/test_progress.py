"""How far a sweep is, from its files, and how that is said."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bearray import cli
from bearray.errors import DataError, MissingFileError
from bearray.jobs.paper import read_any
from bearray.jobs.progress import Progress, read_progress
from bearray.jobs.show import demand_lines, failure_lines, job_lines, jobs_lines, progress_lines
from tests.jobs.stored import make


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return make(tmp_path / "demo")


def test_stages_count_runs(storage: Path) -> None:
    stages = {stage.name: stage for stage in read_progress(str(storage)).stages}
    assert {name: (s.finished, s.total, s.waiting) for name, s in stages.items()} == {
        "methods": (1, 2, 0),  # SFT with two seeds
        "search": (0, 2, 1),  # two trials of BEAR
        "seeds": (0, 1, 1),  # BEAR's best settings with the other seed
        "test": (0, 4, 3),
    }
    assert stages["methods"].states == {"finished": 1, "failed": 1}
    assert stages["search"].states == {"going on": 1}


def test_runs_tell_epochs_scores_shards_and_errors(storage: Path) -> None:
    runs = {run.run: run for run in read_progress(str(storage)).runs}
    assert set(runs) == {"sft-1", "sft-2", "bear-1"}
    assert (runs["sft-1"].epoch, runs["sft-1"].best) == (2, 0.2)
    assert (runs["sft-1"].shards, runs["sft-1"].of_shards) == (1, 3)
    assert runs["sft-2"].error == "ValueError: the loss is NaN" and runs["sft-2"].best is None
    assert (runs["bear-1"].state, runs["bear-1"].epoch, runs["bear-1"].epochs) == ("going on", 1.5, 2)


def test_a_tested_sweep_with_a_report(storage: Path) -> None:
    for number in (1, 2):
        (storage / f"runs/sft-1/predictions/part-0000{number}.parquet").write_bytes(b"a shard")
    (storage / "report").mkdir()
    (storage / "report" / "index.html").write_text("", encoding="utf-8")
    progress = read_progress(str(storage))
    assert progress.report and progress.stages[-1].states == {"finished": 1}


def test_it_survives_json(storage: Path) -> None:
    progress = read_progress(str(storage))
    assert Progress.from_dict(json.loads(json.dumps(progress.to_dict()))) == progress


@pytest.mark.parametrize(
    "change", [{"stages": 3}, {"stages": [{"name": "x", "states": {"finished": "many"}, "total": 1}]},
    {"runs": [{"run": "x"}]}, {"surprise": 1}],
)  # fmt: skip
def test_another_versions_answer_is_no_traceback(storage: Path, change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="ray up"):
        Progress.from_dict(read_progress(str(storage)).to_dict() | change)


@pytest.mark.parametrize(
    ("file", "place", "value", "told"),
    [
        (
            "sft-1/config.json",
            ("run", "train", "seed"),
            None,
            r"sft-1/config\.json: run\.train\.seed is None",
        ),
        ("sft-1/config.json", ("run", "train", "epochs"), "many", r"epochs is 'many'; it must be a whole"),
        ("sft-2/result.json", ("status",), ["x"], r"sft-2/result\.json: status is \['x'\]"),
    ],
)
def test_a_value_of_another_kind_is_named(
    storage: Path, file: str, place: tuple[str, ...], value: object, told: str
) -> None:
    path = storage / "runs" / file
    content = json.loads(path.read_bytes())
    inner = content
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=told):
        read_progress(str(storage))


def test_an_epoch_that_is_no_number_is_named_with_its_line(storage: Path) -> None:
    metrics = storage / "runs/sft-1/metrics.jsonl"
    metrics.write_text('{"epoch": 1}\n{"epoch": "x"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"sft-1/metrics\.jsonl, line 2: epoch is 'x'"):
        read_progress(str(storage))


def test_a_score_that_is_no_number_counts_for_none(storage: Path) -> None:
    metrics = storage / "runs/sft-1/metrics.jsonl"
    metrics.write_text('{"epoch": 1, "valid_ndcg@10": NaN}\n', encoding="utf-8")
    assert {run.run: run.best for run in read_progress(str(storage)).runs}["sft-1"] is None


def test_no_text_of_others_moves_the_terminal_or_is_read_as_markup(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    escape = "\x1b]0;owned\x07\x1b[2J[/x] [red]"
    for name, entry in (("result.json", "error"), ("result.json", "status")):
        file = storage / "runs/sft-2" / name
        file.write_text(json.dumps(json.loads(file.read_bytes()) | {entry: escape}), encoding="utf-8")
    sweep = json.loads((storage / "sweep.json").read_bytes()) | {"dataset": escape}
    (storage / "sweep.json").write_text(json.dumps(sweep), encoding="utf-8")
    (storage / "runs" / "sft-2").rename(storage / "runs" / "a\x1b[2Jb")
    assert cli.run(["jobs", "status", "--storage", str(storage)]) == 0
    shown = capsys.readouterr().out
    assert all(sign.isprintable() or sign == "\n" for sign in shown)
    assert shown.count("[2J[/x] [red]") == 4 and "a\ufffd[2Jb" in shown  # data set, stage, run, its error


JOB = SimpleNamespace(
    submission_id="a\x1b[2J", job_id=None, status="FAILED", start_time=1, end_time=2,
    entrypoint="python x.py '\x1b[2J'", message="it failed:\n\x1b[2J",
)  # fmt: skip


def test_nor_does_what_the_cluster_says() -> None:
    failure = {"pid": 1, "node": "\x1b[2J", "why": "\x1b[2J", "log": ["\x1b[2J"]}
    lines = [*job_lines(JOB), *jobs_lines([JOB]), *failure_lines([failure])]
    assert len(lines) == 6 and all(line.isprintable() and "[2J" in line for line in lines)
    JOB.message = "\n"
    assert len(list(job_lines(JOB))) == 2


def test_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no sweep.*sweep\.json.*paper\.json"):
        read_any(str(tmp_path))


def test_in_words(storage: Path) -> None:
    lines = [*progress_lines(read_progress(str(storage))), *demand_lines(["{'GPU': 1.0}: 2+ pending tasks"])]
    text = "\n".join(lines)
    for line in (
        "methods  1 of 2 finished, 1 failed",
        "search   0 of 2 finished, 1 going on, 1 waiting",
        "report   not yet",
        "epoch 2 of 2, best validation NDCG@10 0.2000, test shards 1 of 3",
        "failed    epoch 0 of 2, ValueError: the loss is NaN",
        "best validation NDCG@10 so far: 0.2500, bear-1",
        "{'GPU': 1.0}: 2+ pending tasks",
    ):
        assert line in text


def test_the_command_reads_a_storage_without_a_cluster(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["jobs", "status", "--storage", str(storage)]) == 0
    assert "1 of 2 finished" in capsys.readouterr().out
    assert cli.run(["jobs", "status", "--storage", str(storage), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 3
    assert cli.run(["jobs", "status", "--storage", str(storage.parent)]) == 2
    assert "no sweep" in capsys.readouterr().err
