"""Run folders: the one place where a run's settings, progress and results stand.

A folder holds config.json, metrics.jsonl, result.json, predictions/ and checkpoints/. Paths may be local
folders or URIs that pyarrow understands (s3://bucket/..., gs://...), since workers on other nodes write
them. A local file is replaced by a rename and an object store's put is atomic, so a reader never sees
half a file.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow.fs as pafs

from bearray.addresses import refuse_secrets
from bearray.errors import DataError, MissingFileError, StorageError
from bearray.plain import parse_json
from bearray.run_shapes import check_file

SWEEP = "sweep.json"
"""What a sweep was asked for; in its storage."""
CHECKPOINTS = "checkpoints"
"""Folder of a run's checkpoints."""
ADAPTER = "adapter"
"""Folder of the adapter within a checkpoint."""
SOFT = "soft"
"""Folder of a checkpoint: projectors of soft tokens, and the vectors that they project."""
_WITHOUT_FOLDERS = {"abfs", "gcs", "s3"}
"""Kinds of file systems on which a folder is nothing but a part of names; to make one takes four requests."""
JOB_COPY = "/working_dir_files/"
"""In the path of the copy of a working directory that Ray makes for a job, and deletes after it."""


def absolute(path: str | os.PathLike[str]) -> str:
    """A local path, or the one in a file:// URI, made absolute; any other URI as it is."""
    text = os.fspath(path)
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    return text if "://" in text else os.path.abspath(os.path.expanduser(text))


def join(base: str, *parts: str) -> str:
    return "/".join([base.rstrip("/"), *parts])


def inside(name: str) -> str:
    """The name of a file or folder below a storage, checked: it may come from a file or a listing of others.

    Raises:
        StorageError: it would lead out of the storage.
    """
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
        raise StorageError(f"{name!r} is no name below a storage folder: it may not lead out of it")
    return name


OUT_OF_ORDER = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room or have the quota raised",
    errno.EROFS: "mount it writable",
    errno.EIO: "see to the disk",
}
"""What a storage as a whole can suffer from while it is in use, and what helps."""


def cause_of(error: OSError) -> str:
    """The system's words for an error, without those that pyarrow wraps around them, and what helps."""
    if not error.errno:
        return str(error)
    helps = OUT_OF_ORDER.get(error.errno)
    return os.strerror(error.errno) + (f"; {helps} and run the same again to continue" if helps else "")


def storage_trouble(text: str) -> str | None:
    """What an error's text says of a storage that is full, read-only or broken, and what helps; else None.

    For errors that come from other processes, or from other libraries, which leave nothing but a text.
    """
    for number, help_ in OUT_OF_ORDER.items():
        if os.strerror(number) in text:
            return f"{os.strerror(number)}; {help_}"
    return None


@dataclass(frozen=True)
class Storage:
    """A folder on any file system, addressed by relative names.

    Raises:
        ConfigError: its address holds a key or a password.
    """

    root: str

    def __post_init__(self) -> None:
        refuse_secrets(str(self.root))  # programs may give a Path
        object.__setattr__(self, "root", absolute(self.root))

    def _open(self, name: str) -> tuple[pafs.FileSystem, str]:
        path = join(self.root, inside(name)) if name else self.root
        if "://" not in path:
            return pafs.LocalFileSystem(), path
        try:
            fs, inner = pafs.FileSystem.from_uri(path)
        except (OSError, ValueError) as error:
            raise StorageError(f"storage path {self.root!r} cannot be used: {error}") from error
        return fs, inner

    @property
    def remote(self) -> bool:
        """Whether it is no folder of this machine: each look takes a request, and may be billed."""
        return "://" in self.root

    def child(self, *parts: str) -> Storage:
        """A folder below this one.

        Raises:
            StorageError: a part leads out of it.
        """
        return Storage(join(self.root, *map(inside, parts)))

    def opened(self) -> tuple[pafs.FileSystem, str]:
        """The file system, and the folder's path on it.

        Raises:
            StorageError: the storage's path is none.
        """
        return self._open("")

    def _look(self, name: str, *, folder: bool = False, below: bool = False) -> Any:
        """What pyarrow says of a name, or of what is in a folder that may not be there.

        Raises:
            StorageError: it cannot be looked at, with the system's reason.
        """
        fs, path = self._open(name)
        what = pafs.FileSelector(path, recursive=below, allow_not_found=True) if folder else path
        try:
            return fs.get_file_info(what)
        except OSError as error:  # no folder, no permission, no bucket
            raise StorageError(f"cannot look at {join(self.root, name)}: {cause_of(error)}") from error

    def exists(self, name: str = "") -> bool:
        return bool(self._look(name).type != pafs.FileType.NotFound)

    def names(self, name: str = "") -> list[str]:
        """Names directly in a folder, sorted; of a folder that is not there, none."""
        return sorted(os.path.basename(info.path) for info in self._look(name, folder=True))

    def written(self, name: str = "") -> dict[str, float]:
        """Names directly in a folder with the times at which they were written, in seconds, by the clock of
        the file system; of a folder that is not there, none."""
        return {each: time / 1e9 for each, (time, _) in self.stamps(name).items()}

    def stamps(self, name: str = "") -> dict[str, tuple[int, int]]:
        """Names directly in a folder with two numbers of which one changes when they are written, as a rule;
        of a folder that is not there, none. One request, whatever there is in it."""
        infos = self._look(name, folder=True)
        return {os.path.basename(info.path): (info.mtime_ns or 0, info.size or 0) for info in infos}

    def files(self, *, without: Collection[str] = ()) -> list[str]:
        """Names of all files below, relative to the root and sorted, but for folders of the given names."""
        return sorted(self.listing(without=without))

    def listing(self, *, without: Collection[str] = ()) -> dict[str, pafs.FileInfo]:
        """Size and time of all files below, by their names as `files` has them."""
        _, path = self._open("")
        infos = self._look("", folder=True, below=True)
        found = {os.path.relpath(i.path, path): i for i in infos if i.type == pafs.FileType.File}
        return {name: i for name, i in found.items() if not set(name.split("/")[:-1]) & set(without)}

    def read_bytes(self, name: str) -> bytes:
        fs, path = self._open(name)
        try:
            if not self.remote and fs.get_file_info(path).type == pafs.FileType.Unknown:
                raise StorageError(f"{join(self.root, name)} is not a file")  # opening a pipe waits for ever
            with fs.open_input_stream(path) as stream:
                data: bytes = stream.read()
                return data
        except FileNotFoundError as error:
            raise MissingFileError(f"{join(self.root, name)} does not exist") from error
        except OSError as error:
            raise StorageError(f"cannot read {join(self.root, name)}: {error}") from error

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a whole file; a reader sees the old one or the new one, never a part.

        Raises:
            StorageError: with the file and the system's reason; nothing is left of the new one.
        """
        fs, path = self._open(name)
        local = isinstance(fs, pafs.LocalFileSystem)
        target = f"{path}.{uuid.uuid4().hex[:8]}.tmp" if local else path
        try:
            if fs.type_name not in _WITHOUT_FOLDERS:
                fs.create_dir(os.path.dirname(path), recursive=True)
            with fs.open_output_stream(target) as stream:
                stream.write(data)
            if local:
                os.replace(target, path)
        except OSError as error:
            if local:
                with suppress(OSError):  # a full disk needs the room
                    os.unlink(target)
            raise StorageError(f"cannot write {join(self.root, name)}: {cause_of(error)}") from error

    def put_folder(self, name: str, folder: Path, *, last: str) -> None:
        """Copy a local folder's files, `last` after all others: a reader who finds it finds everything."""
        files = sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())
        for file in [*(f for f in files if f != last), last]:
            self.write_bytes(join(name, file), (folder / file).read_bytes())

    def delete(self, name: str) -> None:
        """Delete a file or folder, if it is there.

        Raises:
            StorageError: with the path and the system's reason.
        """
        fs, path = self._open(name)
        info = self._look(name)
        try:
            if info.type == pafs.FileType.Directory:
                fs.delete_dir(path)
            elif info.type == pafs.FileType.File:
                fs.delete_file(path)
        except FileNotFoundError:  # somebody else was faster
            return
        except OSError as error:
            raise StorageError(f"cannot delete {join(self.root, name)}: {cause_of(error)}") from error

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON object; of the files in `bearray.run_shapes`, one of their shape.

        Raises:
            MissingFileError: there is no such file.
            DataError: it is damaged; the message names file, entry and value.
        """
        where = join(self.root, name)
        try:
            value = parse_json(self.read_bytes(name), finite=True)
        except ValueError as error:  # no JSON, or no UTF-8
            raise DataError(f"{where} is not valid JSON: {error}") from error
        return check_file(value, name.rpartition("/")[2], where)

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())

    def read_lines(self, name: str) -> list[dict[str, Any]]:
        """A JSON-lines file as dictionaries; of a file that is not there, none."""
        try:
            lines = self.read_bytes(name).splitlines()
        except MissingFileError:
            return []
        rows = []
        for number, line in enumerate(lines, 1):
            try:
                row = parse_json(line)
            except ValueError as error:
                raise DataError(
                    f"{join(self.root, name)}, line {number}, is not valid JSON: {error}"
                ) from error
            if not isinstance(row, dict):
                raise DataError(f"{join(self.root, name)}, line {number}, is not a JSON object")
            rows.append(row)
        return rows

    def write_lines(self, name: str, rows: list[dict[str, Any]]) -> None:
        self.write_bytes(name, "".join(json.dumps(r, allow_nan=False) + "\n" for r in rows).encode())

    def check_writable(self) -> None:
        """Write and remove a small file, so that a night's training does not end at a full or read-only disk.

        Raises:
            StorageError: with the storage path and the system's reason; or it would be deleted with a job.
        """
        if JOB_COPY in self.root:
            raise StorageError(
                f"{self.root} is in the copy of the working directory that Ray made for this job and deletes "
                "after it; give --storage as an absolute path or a URI, one that all nodes reach"
            )
        probe = f".write-test-{uuid.uuid4().hex[:8]}"
        self.write_bytes(probe, b"bearray")
        self.delete(probe)

    def trouble(self, told: str) -> StorageError | None:
        """The storage as the reason for an error, or None where it has nothing to do with it.

        Args:
            told: the error's text, as it came from other processes or libraries.
        """
        words = storage_trouble(told) if self.root in told else None  # else another disk may be full
        try:
            if words is None:
                self.check_writable()
                return None
        except StorageError as error:
            words = storage_trouble(str(error)) or str(error)
        return StorageError(
            f"{self.root} cannot be written: {words} and run the same command again to continue"
        )


@contextmanager
def fetch_folder(path: str, *, without: Collection[str] = ()) -> Iterator[Path]:
    """A folder as a local path: itself where it is local, else a copy that lives as long as the block.

    Args:
        path: a folder or URI.
        without: names of folders, at any depth, that need not be copied.

    Raises:
        MissingFileError: there is no such folder.
        StorageError: it holds a name that would lead out of the copy.
    """
    storage = Storage(path)
    if not storage.exists():
        raise MissingFileError(f"{path} does not exist")
    if not storage.remote:
        yield Path(storage.root)
        return
    with tempfile.TemporaryDirectory() as parent:
        local = Path(parent) / storage.root.rstrip("/").rpartition("/")[2]  # reports are titled by it
        for name in storage.files(without=without):
            target = local / inside(name)  # an object store lists whatever name was put there
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(storage.read_bytes(name))
        yield local
