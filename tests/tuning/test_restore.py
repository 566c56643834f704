"""Ray Tune's record after a crash: continued where it is whole, else begun anew, its search's journal too."""

from __future__ import annotations

from pathlib import Path

import pytest

from bearray.runs import Storage
from bearray.tuning.restore import can_continue


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """As Tune leaves it; its pickles end with a full stop."""
    folder = tmp_path / "tune" / "bear"
    folder.mkdir(parents=True)
    for name, content in {
        "tuner.pkl": b"\x80\x04N.",
        "searcher-state-2026.pkl": b"\x80\x04N.",
        "experiment_state-2025.json": b"{",  # of an earlier call: nobody reads it any more
        "experiment_state-2026.json": b'{"trial_data": []}',
    }.items():
        (folder / name).write_bytes(content)
    for path in (tmp_path / "tune", folder, *folder.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def ask(experiment: Path) -> bool:
    journal = experiment.parents[1] / "bear.log"
    journal.write_text("{}")
    found = can_continue(Storage(str(experiment.parent)), experiment.name, journal)
    assert journal.exists() == experiment.exists() == found  # both are continued, or both begin anew
    return found


def test_a_whole_record_is_continued(experiment: Path) -> None:
    assert ask(experiment)


@pytest.mark.parametrize("name", ["experiment_state-2026.json", "tuner.pkl", "searcher-state-2026.pkl"])
def test_half_a_file(experiment: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = experiment / name
    path.write_bytes(path.read_bytes()[:-1])
    assert not ask(experiment)
    assert name in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize("name", ["experiment_state-", "tuner.pkl"])
def test_a_file_that_was_not_yet_written(experiment: Path, name: str) -> None:
    for path in experiment.glob(f"{name}*"):
        path.unlink()
    assert not ask(experiment)


def test_nothing_there_yet(tmp_path: Path) -> None:
    assert not can_continue(Storage(str(tmp_path)), "bear", tmp_path / "bear.log")


@pytest.mark.parametrize("left", [None, ""])
def test_a_journal_that_was_on_a_machine_that_is_gone(
    experiment: Path, left: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = experiment.parents[1] / "bear.log"
    if left is not None:
        journal.write_text(left)
    assert not can_continue(Storage(str(experiment.parent)), experiment.name, journal)
    assert not experiment.exists() and not journal.exists()
    assert "has lost its journal" in capsys.readouterr().out.replace("\n", " ")


def test_an_experiment_that_is_no_search_needs_no_journal(experiment: Path) -> None:
    assert can_continue(Storage(str(experiment.parent)), experiment.name)
