"""Parquet in and out: local folders and pyarrow.fs URIs (s3://..., gs://..., file://...)."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from bearray.addresses import refuse_secrets
from bearray.errors import DataError, MissingFileError, StorageError


def locate(path: str | Path) -> tuple[pafs.FileSystem, str]:
    """The file system and the absolute path in it that a path or URI means.

    Raises:
        DataError: a path or URI that cannot be interpreted.
        ConfigError: a URI with a key or a password in it.
    """
    text = os.fspath(path)
    refuse_secrets(text)
    if "\0" in text:
        raise DataError(f"{text!r} is not a path: it holds a zero byte")
    if "://" not in text:
        # realpath, since Path.resolve raises for a link to itself
        return pafs.LocalFileSystem(), os.path.realpath(os.path.expanduser(text))
    try:
        system, inner = pafs.FileSystem.from_uri(text)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, ValueError) as error:
        raise DataError(f"{text} is not a path or URI that pyarrow can open: {error}") from error
    return system, inner.rstrip("/")


def exists(system: pafs.FileSystem, path: str) -> bool:
    """Whether there is a file or folder at `path`."""
    return bool(system.get_file_info([path])[0].type != pafs.FileType.NotFound)


def require_file(system: pafs.FileSystem, path: str, shown: str | Path) -> None:
    """Make sure that there is a file to read: opening a pipe would wait for ever.

    Args:
        system, path: as `locate` returns them.
        shown: what the user calls it.

    Raises:
        MissingFileError: there is nothing.
        DataError: it is a folder, a pipe or a device.
    """
    try:
        kind = system.get_file_info([path])[0].type
    except OSError as error:
        raise DataError(f"{shown} cannot be read: {error}") from error
    if kind == pafs.FileType.NotFound:
        raise MissingFileError(f"{shown} does not exist")
    if kind != pafs.FileType.File:
        raise DataError(f"{shown} is not a file")


def read_parquet(system: pafs.FileSystem, path: str) -> pa.Table:
    """One Parquet file as a table.

    Raises:
        MissingFileError: there is no such file.
        DataError: the file is not Parquet.
    """
    require_file(system, path, path)
    try:
        with system.open_input_file(path) as handle:
            table = pq.read_table(handle)
            check_names(table)
            return table
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} does not exist") from error
    except (pa.ArrowException, ValueError, MemoryError, OSError) as error:
        raise DataError(f"{path} cannot be read as a Parquet file: {error}") from error


def check_names(table: pa.Table) -> None:
    """Raises ValueError where a column's name is not UTF-8; pyarrow notices when it is asked for it."""
    _ = table.column_names


def check_output(out: Path, *, force: bool = False) -> Path:
    """Whether a data set can be put at `out`, asked before long work starts.

    Returns:
        `out` as an absolute path.

    Raises:
        DataError: `out` is a file, or a folder that is not empty and `force` is not set.
        StorageError: nothing can be written beside it.
    """
    out = out.expanduser().absolute()
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; the output must be a folder")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise DataError(f"{out} exists and is not empty; choose another folder, or replace it with --force")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot create {out.parent}: {error}") from error
    if not os.access(out.parent, os.W_OK):
        raise StorageError(f"cannot write to {out.parent}")
    return out


@contextmanager
def new_folder(out: Path, *, force: bool = False) -> Iterator[Path]:
    """A scratch folder beside `out`: it becomes `out` when the block ends well and vanishes when not.

    Raises:
        DataError, StorageError: as `check_output`, or the folder cannot be created or moved there.
    """
    out = check_output(out, force=force)
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise StorageError(f"cannot write to {out.parent}: {error}") from error
    try:
        built = scratch / "new"
        built.mkdir()
        yield built
        try:
            if out.is_dir():
                out.rename(scratch / "old")
            built.rename(out)
        except OSError as error:
            if (scratch / "old").exists() and not out.exists():
                (scratch / "old").rename(out)
            raise StorageError(f"cannot move the finished folder to {out}: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
