"""Copies the files of a storage that are new or have changed: in pieces, several at a time.

A file counts as unchanged if size and time are those of the copy, which keeps the time of what it was copied
from; an object store gives an object a new time with each put. A copy is written beside its place and put
there whole.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs

from bearray.errors import StorageError
from bearray.runs import Storage, cause_of, inside, join

PIECE = 4 << 20
"""Bytes that are in memory at a time, for each thread."""
THREADS = 8
"""A bucket takes some tens of milliseconds for each of many small files."""
TRIES = 3
"""A file that changes while it is read is read so often."""
FRESH_SECONDS = 10.0
"""A bucket's times may be whole seconds, so that a time as young as this may yet be given to other content. A
copy of a file so young is made again the next time."""
UNFINISHED = ".tmp"
"""Ends the name of a file that is being written, here and by `Storage.write_bytes`."""

Tell = Callable[[int, int], None]
"""Is told files that are done, and bytes, since the last time; from several threads."""


@dataclass(frozen=True)
class Todo:
    """A file to be copied."""

    name: str
    info: pafs.FileInfo


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What came of it, in files."""

    brought: int
    size: int
    """Bytes of those."""
    restless: tuple[str, ...]
    """Left as they were here, because they changed each time that they were read."""


def not_here(source: Storage, target: Path, *, without: Collection[str] = ()) -> tuple[list[Todo], int]:
    """The files of a storage that a folder does not have as they are there, and how many it has.

    Args:
        without: names of folders, at any depth, that are left out, as are unfinished files.

    Raises:
        StorageError: a name leads out of the folder; or the storage cannot be listed.
    """
    found = source.listing(without=without).items()
    files = [Todo(inside(name), info) for name, info in found if not name.endswith(UNFINISHED)]
    todo = [file for file in files if not _same(file.info, target / file.name)]
    return sorted(todo, key=lambda file: file.name), len(files) - len(todo)


def _same(info: pafs.FileInfo, path: Path) -> bool:
    try:
        here = path.stat()
    except OSError:  # it is not there; what else is wrong is said when it is written
        return False
    return info.mtime_ns is not None and (here.st_size, here.st_mtime_ns) == (info.size, info.mtime_ns)


def copy_files(source: Storage, target: Path, todo: Collection[Todo], tell: Tell) -> Copied:
    """Copy files of a storage into a folder, but for those that are gone meanwhile.

    Raises:
        StorageError: one cannot be read or written, with the system's reason. Files that are complete stay,
            no part of another is left, as also after Ctrl-C.
    """
    fs, root = source.opened()
    stop = threading.Event()
    sizes: list[int] = []
    restless: list[str] = []

    def copy_one(file: Todo) -> None:
        path = join(root, file.name)
        try:
            size = _copy(fs, path, file.info, target / file.name, stop, tell)
        except FileNotFoundError as error:
            if fs.get_file_info(path).type == pafs.FileType.NotFound:  # a sweep that goes on clears up
                return
            raise StorageError(f"cannot write {target / file.name}: {cause_of(error)}") from error
        except OSError as error:
            where = join(source.root, file.name)
            raise StorageError(f"cannot copy {where} to {target}: {cause_of(error)}") from error
        if size is None:
            restless.append(file.name)
        else:
            sizes.append(size)
        tell(1, 0)

    with ThreadPoolExecutor(THREADS) as pool:
        running = [pool.submit(copy_one, file) for file in todo]
        try:
            for future in as_completed(running):
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return Copied(brought=len(sizes), size=sum(sizes), restless=tuple(sorted(restless)))


class _Stopped(Exception):
    """Another file's error, or Ctrl-C, has ended the copying."""


def _copy(
    fs: pafs.FileSystem, path: str, info: pafs.FileInfo, target: Path, stop: threading.Event, tell: Tell
) -> int | None:
    """Bytes of a file's copy; None where the file changed each time that it was read.

    Pieces of an object are asked for one after the other, so a copy may be of two contents: it counts only if
    the object is the same before and after.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}{UNFINISHED}")
    for _ in range(TRIES):
        written = 0
        try:
            with fs.open_input_stream(path) as stream, part.open("wb") as out:
                while piece := stream.read(PIECE):
                    if stop.is_set():
                        raise _Stopped
                    written += out.write(piece)
                    tell(0, len(piece))
            now = fs.get_file_info(path)
            if (written, now.size, now.mtime_ns) == (info.size, info.size, info.mtime_ns):
                if info.mtime_ns is not None and time.time() - info.mtime_ns / 1e9 > FRESH_SECONDS:
                    os.utime(part, ns=(info.mtime_ns, info.mtime_ns))
                os.replace(part, target)
                return written
            info = now
            tell(0, -written)
        finally:
            part.unlink(missing_ok=True)
    return None
