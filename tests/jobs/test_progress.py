"""How far a sweep is, from its files, and how that is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bearray import cli
from bearray.errors import DataError, MissingFileError
from bearray.jobs.progress import Progress, read_progress
from bearray.jobs.show import progress_lines
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


@pytest.mark.parametrize("change", [{"stages": 3}, {"runs": [{"run": "x"}]}, {"surprise": 1}])
def test_another_versions_answer_is_no_traceback(storage: Path, change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="ray up"):
        Progress.from_dict(read_progress(str(storage)).to_dict() | change)


def test_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no sweep.*sweep\.json"):
        read_progress(str(tmp_path))


def test_in_words(storage: Path) -> None:
    text = "\n".join(progress_lines(read_progress(str(storage)), ["{'GPU': 1.0}: 2+ pending tasks/actors"]))
    for line in (
        "methods  1 of 2 finished, 1 failed",
        "search   0 of 2 finished, 1 going on, 1 waiting",
        "report   not yet",
        "epoch 2 of 2, best validation NDCG@10 0.2000, test shards 1 of 3",
        "failed    epoch 0 of 2, ValueError: the loss is NaN",
        "best validation NDCG@10 so far: 0.2500, bear-1",
        "{'GPU': 1.0}: 2+ pending tasks/actors",
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
