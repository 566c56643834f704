"""Files come in pieces, whole, and only once; a copy that fails leaves nothing behind."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from bearray.errors import StorageError
from bearray.jobs import copying
from bearray.jobs.copying import Copied, copy_files, not_here
from bearray.runs import Storage

LONG_AGO = time.time() - 3600


@pytest.fixture
def there(tmp_path: Path) -> Storage:
    """Three files, written an hour ago."""
    storage = Storage(str(tmp_path / "there"))
    for number, (name, size) in enumerate((("a/big", 1000), ("a/empty", 0), ("small", 10))):
        storage.write_bytes(name, os.urandom(size))
        os.utime(f"{storage.root}/{name}", (LONG_AGO + number, LONG_AGO + number))
    return storage


def bring(there: Storage, here: Path) -> tuple[Copied, int, list[tuple[int, int]]]:
    told: list[tuple[int, int]] = []
    todo, kept = not_here(there, here)
    return copy_files(there, here, todo, lambda files, size: told.append((files, size))), kept, told


def contents(folder: str | Path) -> dict[str, bytes]:
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_in_pieces(there: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "PIECE", 300)
    monkeypatch.setattr(Storage, "read_bytes", None)  # nothing is read whole
    copied, kept, told = bring(there, tmp_path / "here")
    assert copied == Copied(brought=3, size=1010, restless=()) and kept == 0
    assert contents(tmp_path / "here") == contents(there.root)
    assert sorted(size for _, size in told if size) == [10, 100, 300, 300, 300]
    assert sum(files for files, _ in told) == 3


def test_again_nothing_is_read(there: Storage, tmp_path: Path) -> None:
    bring(there, tmp_path / "here")
    assert bring(there, tmp_path / "here") == (Copied(brought=0, size=0, restless=()), 3, [])


@pytest.mark.parametrize("change", ["size", "time", "gone here"])
def test_what_has_changed_is_read_again(there: Storage, tmp_path: Path, change: str) -> None:
    here = tmp_path / "here"
    bring(there, here)
    if change == "size":
        there.write_bytes("small", b"other")
    elif change == "time":
        there.write_bytes("small", bytes(10))
    else:
        (here / "small").unlink()
    copied, kept, _ = bring(there, here)
    assert (copied.brought, kept) == (1, 2) and contents(here) == contents(there.root)


def test_a_time_that_may_be_given_twice_is_not_trusted(there: Storage, tmp_path: Path) -> None:
    """Of a bucket's times, which may be whole seconds: two puts in one second, a copy between them."""
    second = int(time.time())
    for content in (b"old", b"new"):
        there.write_bytes("small", content)
        os.utime(f"{there.root}/small", (second, second))
        bring(there, tmp_path / "here")
        assert (tmp_path / "here" / "small").read_bytes() == content


class Stream:
    """A file's stream, and what happens at its second piece."""

    def __init__(self, stream: Any, second: Any) -> None:
        self.stream, self.second, self.count = stream, second, 0

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def read(self, size: int) -> bytes:
        self.count += 1
        if self.count == 2:
            self.second()
        found: bytes = self.stream.read(size)
        return found


class FileSystem:
    """A local one, on whose big file something happens meanwhile."""

    def __init__(self, fs: Any, second: Any) -> None:
        self.fs, self.second = fs, second

    def get_file_info(self, path: str) -> Any:
        return self.fs.get_file_info(path)

    def open_input_stream(self, path: str) -> Any:
        stream = self.fs.open_input_stream(path)
        return Stream(stream, self.second) if path.endswith("big") else stream


def during(monkeypatch: pytest.MonkeyPatch, second: Any) -> None:
    """Something happens while the big file is read."""
    opened = Storage.opened

    def instead(self: Storage) -> Any:
        fs, root = opened(self)
        return FileSystem(fs, second), root

    monkeypatch.setattr(copying, "PIECE", 300)
    monkeypatch.setattr(Storage, "opened", instead)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_no_half_file_is_left(
    there: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    here = tmp_path / "here"
    bring(there, here)
    before = contents(here)
    there.write_bytes("a/big", bytes(999))

    def fail() -> None:
        raise error

    during(monkeypatch, fail)
    with pytest.raises(StorageError if isinstance(error, OSError) else KeyboardInterrupt):
        bring(there, here)
    assert contents(here) == before


def test_one_that_changes_while_it_is_read_is_read_again(
    there: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of two contents would make a file that never was."""
    new, times = os.urandom(1000), []

    def put() -> None:
        if not times:
            there.write_bytes("a/big", new)
            times.append(1)

    during(monkeypatch, put)
    copied, _, told = bring(there, tmp_path / "here")
    assert copied.brought == 3 and (tmp_path / "here" / "a" / "big").read_bytes() == new
    assert sum(size for _, size in told) == 1010


def test_one_that_never_rests_is_left_out_and_named(
    there: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    during(monkeypatch, lambda: there.write_bytes("a/big", os.urandom(1000)))
    copied, _, _ = bring(there, tmp_path / "here")
    assert copied == Copied(brought=2, size=10, restless=("a/big",))
    assert sorted(contents(tmp_path / "here")) == ["a/empty", "small"]


def test_what_a_running_sweep_takes_away_is_no_error(there: Storage, tmp_path: Path) -> None:
    todo, _ = not_here(there, tmp_path / "here")
    there.delete("small")
    there.write_bytes("a/new.json.0123abcd.tmp", b"ha")
    assert copy_files(there, tmp_path / "here", todo, lambda *_: None).brought == 2
    assert not_here(there, tmp_path / "here") == ([], 2)


def test_what_cannot_be_written_is_named(there: Storage, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a").write_text("a file where a folder has to be", encoding="utf-8")
    with pytest.raises(StorageError, match=r"a/.*here: .*xists"):
        bring(there, tmp_path / "here")


def test_a_name_that_leads_out_is_refused(
    there: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Object stores take "../../x" for the name of an object like any other."""
    infos = there.listing()
    monkeypatch.setattr(Storage, "listing", lambda self, **_: {"../../x": infos["small"]})
    with pytest.raises(StorageError, match="may not lead out"):
        not_here(there, tmp_path / "here")
