"""Progress of a sweep on the terminal; without Ray."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from bearray.runs import Storage
from bearray.training.events import tell
from bearray.tuning.watch import polling, say, watching
from tests.test_terminal import GLOO


def test_what_has_befallen_a_run_is_told_word_by_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Storage(str(tmp_path / "a[/b]" / "runs"))
    run = runs.child("bear-[x]")
    run.write_json(
        "config.json",
        {"run": {"train": {"epochs": 2}}, "method": "bear", "dataset": "d", "base_model": "m"},
    )
    with watching(runs):
        tell(run, f"rank 0: {GLOO}")
        run.write_lines("metrics.jsonl", [{"kind": "epoch", "epoch": 1, "seconds": 3.0}])
    say("storage: ", (runs.root, "bold"))
    out = capsys.readouterr().out
    assert f"bear-[x]: rank 0: {GLOO}\n" in out
    assert "bear-[x]: epoch 1/2 in 3 s\n" in out
    assert f"storage: {runs.root}\n" in out


def test_what_goes_wrong_while_looking_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    looked = threading.Semaphore(0)

    def look() -> None:
        looked.release()
        raise KeyError("a[/b]")

    with polling(look, 0.001):
        for _ in range(3):
            assert looked.acquire(timeout=60)
    assert capsys.readouterr().out.count("progress cannot be read: KeyError: 'a[/b]'") == 1
