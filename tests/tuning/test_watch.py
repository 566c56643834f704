"""Progress of a sweep on the terminal; without Ray."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from bearray.runs import Storage
from bearray.training.events import tell
from bearray.tuning.watch import _Watcher, polling, say, watching
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


def test_only_what_has_changed_is_read_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an object store each look is a request."""
    runs = Storage(str(tmp_path / "runs"))
    row = {"kind": "step", "epoch": 0.5, "loss": 1.0, "tokens_per_s": 9.0}
    for name in ("a-1", "b-2"):
        about = {"run": {"train": {"epochs": 2}}, "method": "bear", "dataset": "d", "base_model": "m"}
        runs.child(name).write_json("config.json", about)
        runs.child(name).write_lines("metrics.jsonl", [row])
    read: list[str] = []
    plain = Storage.read_bytes

    def counted(self: Storage, name: str) -> bytes:
        read.append(f"{self.root.rpartition('/')[2]}/{name}")
        return plain(self, name)

    watcher = _Watcher(runs)
    watcher.poll()
    monkeypatch.setattr(Storage, "read_bytes", counted)
    watcher.poll()
    assert read == []
    runs.child("b-2").write_lines("metrics.jsonl", [row, row | {"epoch": 0.75}])
    watcher.poll()
    assert "b-2: epoch 0.75/2, loss 1.0000, 9 tokens/s" in capsys.readouterr().out
    runs.child("b-2").write_lines("metrics.jsonl", [row, row | {"epoch": 0.75}, row | {"epoch": 0.8}])
    watcher.poll()  # not yet due, so it is not forgotten
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("bearray.tuning.watch.STEP_SECONDS", -1.0)
    watcher.poll()
    assert "b-2: epoch 0.80/2" in capsys.readouterr().out
    assert [name for name in read if name.startswith("a-1")] == []
    del read[:]
    watcher.poll()
    assert read == []
