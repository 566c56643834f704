"""Run folders: the one place where a run's settings, progress and results stand.

A folder holds config.json, metrics.jsonl, result.json, predictions/ and checkpoints/. Paths may be local
folders or URIs that pyarrow understands (s3://bucket/..., gs://...), since workers on other nodes write
them. A local file is replaced by a rename and an object store's put is atomic, so a reader never sees
half a file.
"""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow.fs as pafs

from bearray.errors import DataError, MissingFileError, StorageError


def absolute(path: str | os.PathLike[str]) -> str:
    """A local path, or the one in a file:// URI, made absolute; any other URI as it is."""
    text = os.fspath(path)
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    return text if "://" in text else os.path.abspath(os.path.expanduser(text))


def join(base: str, *parts: str) -> str:
    return "/".join([base.rstrip("/"), *parts])


@dataclass(frozen=True)
class Storage:
    """A folder on any file system, addressed by relative names."""

    root: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", absolute(self.root))

    def _open(self, name: str) -> tuple[pafs.FileSystem, str]:
        path = join(self.root, name) if name else self.root
        if "://" not in path:
            return pafs.LocalFileSystem(), path
        try:
            fs, inner = pafs.FileSystem.from_uri(path)
        except (OSError, ValueError) as error:
            raise StorageError(f"storage path {self.root!r} cannot be used: {error}") from error
        return fs, inner

    def child(self, *parts: str) -> Storage:
        return Storage(join(self.root, *parts))

    def exists(self, name: str = "") -> bool:
        fs, path = self._open(name)
        return bool(fs.get_file_info(path).type != pafs.FileType.NotFound)

    def names(self, name: str = "") -> list[str]:
        """Names directly in a folder, sorted; of a folder that is not there, none."""
        fs, path = self._open(name)
        selector = pafs.FileSelector(path, allow_not_found=True)
        return sorted(os.path.basename(info.path) for info in fs.get_file_info(selector))

    def read_bytes(self, name: str) -> bytes:
        fs, path = self._open(name)
        try:
            with fs.open_input_stream(path) as stream:
                data: bytes = stream.read()
                return data
        except FileNotFoundError as error:
            raise MissingFileError(f"{join(self.root, name)} does not exist") from error
        except OSError as error:
            raise StorageError(f"cannot read {join(self.root, name)}: {error}") from error

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a whole file; a reader sees the old one or the new one, never a part."""
        fs, path = self._open(name)
        try:
            fs.create_dir(os.path.dirname(path), recursive=True)
            local = isinstance(fs, pafs.LocalFileSystem)
            target = f"{path}.{uuid.uuid4().hex[:8]}.tmp" if local else path
            with fs.open_output_stream(target) as stream:
                stream.write(data)
            if local:
                os.replace(target, path)
        except OSError as error:
            raise StorageError(f"cannot write {join(self.root, name)}: {error}") from error

    def delete(self, name: str) -> None:
        fs, path = self._open(name)
        info = fs.get_file_info(path)
        if info.type == pafs.FileType.Directory:
            fs.delete_dir(path)
        elif info.type == pafs.FileType.File:
            fs.delete_file(path)

    def read_json(self, name: str) -> Any:
        try:
            return json.loads(self.read_bytes(name))
        except ValueError as error:  # no JSON, or no UTF-8
            raise DataError(f"{join(self.root, name)} is not valid JSON: {error}") from error

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())

    def read_lines(self, name: str) -> list[dict[str, Any]]:
        """A JSON-lines file as dictionaries; of a file that is not there, none."""
        if not self.exists(name):
            return []
        rows = []
        for number, line in enumerate(self.read_bytes(name).splitlines(), 1):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise DataError(
                    f"{join(self.root, name)}, line {number}, is not valid JSON: {error}"
                ) from error
        return rows

    def write_lines(self, name: str, rows: list[dict[str, Any]]) -> None:
        self.write_bytes(name, "".join(json.dumps(r, allow_nan=False) + "\n" for r in rows).encode())

    def check_writable(self) -> None:
        """Write and remove a small file, so that a night's training does not end at a full or read-only disk.

        Raises:
            StorageError: with the storage path and the system's reason.
        """
        probe = f".write-test-{uuid.uuid4().hex[:8]}"
        self.write_bytes(probe, b"bearray")
        self.delete(probe)


@contextmanager
def fetch_folder(path: str) -> Iterator[Path]:
    """A folder as a local path: itself where it is local, else a copy that lives as long as the block.

    Raises:
        MissingFileError: there is no such folder.
    """
    storage = Storage(path)
    if not storage.exists():
        raise MissingFileError(f"{path} does not exist")
    if "://" not in storage.root:
        yield Path(storage.root)
        return
    with tempfile.TemporaryDirectory() as local:
        pafs.copy_files(storage.root, local)
        yield Path(local)
