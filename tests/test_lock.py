"""A storage belongs to one process at a time, and is free again when that one is gone."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bearray import lock
from bearray.errors import BusyError, StorageError
from bearray.lock import Claim, held
from bearray.runs import Storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "storage"))


def claims(storage: Storage) -> list[str]:
    return storage.names(lock.FOLDER)


def leave_claim(storage: Storage, *, age: float = 0.0, **changes: Any) -> Path:
    """A claim as another process would leave it."""
    content = vars(Claim.mine("sweep")) | changes
    storage.write_bytes(f"{lock.FOLDER}/other.json", json.dumps(content).encode())
    path = Path(storage.root) / lock.FOLDER / "other.json"
    told = path.stat().st_mtime - age
    os.utime(path, (told, told))
    return path


ELSEWHERE = {"machine": "gpu-7/boot/1", "host": "gpu-7", "pid": 4242}


def test_the_second_is_refused_and_told_who_has_it(storage: Storage) -> None:
    with held(storage, "sweep"):
        message = rf"{storage.root} is in use by a sweep on .*process {os.getpid()}, since"
        with pytest.raises(BusyError, match=message), held(storage, "benchmark"):
            pytest.fail("both have it")
        assert len(claims(storage)) == 1  # of the first; the refused one has left nothing
    assert claims(storage) == []
    with held(storage, "sweep"):
        assert len(claims(storage)) == 1


def test_free_again_after_an_error_and_after_ctrl_c(storage: Storage) -> None:
    for error in (ValueError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error), held(storage, "sweep"):
            raise error
        assert claims(storage) == []


def test_a_dead_process_of_this_machine_frees_it_at_once(storage: Storage) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    leave_claim(storage, pid=dead.pid)
    with held(storage, "sweep"):
        assert len(claims(storage)) == 1


def test_another_process_of_the_same_number_is_not_the_holder(storage: Storage) -> None:
    leave_claim(storage, born=Claim.mine("x").born - 100)
    with held(storage, "sweep"):
        pass


def test_a_process_elsewhere_holds_it_until_its_lease_ends(storage: Storage) -> None:
    leave_claim(storage, age=lock.LEASE_SECONDS - 30, **ELSEWHERE)
    with (
        pytest.raises(BusyError, match=r"a sweep on gpu-7, process 4242.* free in (30|29) seconds"),
        held(storage, "x"),
    ):
        pytest.fail("it was not free")
    assert claims(storage) == ["other.json"]
    leave_claim(storage, age=lock.LEASE_SECONDS + 1, **ELSEWHERE)
    with held(storage, "sweep"):
        assert "other.json" not in claims(storage)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"what": 5}'])
def test_what_is_no_claim_stops_nobody_and_is_cleared_away_later(storage: Storage, content: bytes) -> None:
    storage.write_bytes(f"{lock.FOLDER}/x.json", content)
    with held(storage, "sweep"):
        assert "x.json" in claims(storage)
    path = Path(storage.root) / lock.FOLDER / "x.json"
    os.utime(path, (1, 1))
    with held(storage, "sweep"):
        assert "x.json" not in claims(storage)


def test_the_holder_shows_that_it_lives(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    renewed = threading.Event()
    write = Storage.write_bytes

    def count(self: Storage, name: str, data: bytes) -> None:
        write(self, name, data)
        if threading.current_thread().name == "bearray-lease":
            renewed.set()

    monkeypatch.setattr(Storage, "write_bytes", count)
    with held(storage, "sweep"):
        assert renewed.wait(60)


def test_a_holder_whose_claim_was_taken_is_stopped(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a laptop's sleep: another machine has gone on meanwhile."""
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    waiting = threading.Event()
    message = r"was taken from this process.*now used by a sweep on gpu-7"
    with pytest.raises(BusyError, match=message), held(storage, "sweep"):
        leave_claim(storage, **ELSEWHERE)
        for name in claims(storage):
            if name != "other.json":
                storage.delete(f"{lock.FOLDER}/{name}")
        waiting.wait(60)
    assert claims(storage) == ["other.json"]


def test_a_storage_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file"), held(Storage(str(tmp_path / "file")), "sweep"):
        pytest.fail("there is no such storage")


def test_object_stores_too(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system without rename or exclusive creation, that forgets nothing it was told."""
    import pyarrow.fs as pafs

    bucket = pafs._MockFileSystem()
    monkeypatch.setattr(
        Storage, "_open", lambda self, name: (bucket, f"bucket{self.root}/{name}".rstrip("/"))
    )
    with held(storage, "sweep"), pytest.raises(BusyError, match="a sweep on"), held(storage, "sweep"):
        pytest.fail("both have it")
    assert claims(storage) == []


def _try(root: str, together: Any, got: Any, seen: Any) -> None:
    together.wait()
    try:
        with held(Storage(root), "sweep"):
            with got.get_lock():
                got.value += 1
            with seen.get_lock():
                seen.value += 1
            together.wait()  # nobody lets go before all have tried
    except BusyError:
        with seen.get_lock():
            seen.value += 1
        together.wait()


def test_of_many_at_once_one_gets_it(storage: Storage) -> None:
    context = multiprocessing.get_context("fork")
    together, got, seen = context.Barrier(5), context.Value("i", 0), context.Value("i", 0)
    processes = [context.Process(target=_try, args=(storage.root, together, got, seen)) for _ in range(5)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert seen.value == 5 and got.value == 1
    assert claims(storage) == []


def test_a_claim_is_gone_only_where_that_can_be_known() -> None:
    mine = Claim.mine("sweep")
    assert not mine.gone
    assert not replace(mine, **ELSEWHERE).gone
