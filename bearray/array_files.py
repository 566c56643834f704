"""Named integer arrays in one file that is checked when it is opened and read only where it is looked at.

A file is in safetensors format, so nothing in it can run. Its header says what it holds (`kind`), in which
version, and a checksum of each array. `read_arrays` maps the file into memory (a private mapping, pages are
loaded when they are first used): processes of one machine that open the same file share its pages in the page
cache, and they count as file pages (RssFile), not as memory of each process. The checksums are verified by
an ordinary sequential read beforehand (2 GB a second from the page cache), because a damaged array would
give wrong recommendations in silence. A file that is being read may be replaced (the old one stays mapped),
but must not be overwritten in place.
"""

from __future__ import annotations

import json
import os
import uuid
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from bearray.errors import DataError, MissingFileError, StorageError
from bearray.plain import parse_json

_BLOCK = 1 << 20


def write_arrays(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Tensor | np.ndarray],
    *,
    kind: str,
    version: int,
    facts: Mapping[str, int],
) -> None:
    """Write a file whole or not at all: a reader sees the old one or the new one.

    Args:
        path: the file; its folder must exist.
        arrays: any shapes and types that safetensors knows.
        kind, version: what the file holds, in which layout; `read_arrays` asks for the same.
        facts: numbers that belong to the arrays.

    Raises:
        StorageError: the file cannot be written.
    """
    target = Path(path)
    plain = {
        name: np.asarray(a.numpy(force=True) if isinstance(a, Tensor) else a, order="C")
        for name, a in arrays.items()
    }
    checksums = {name: zlib.crc32(a.reshape(-1).view(np.uint8).data) for name, a in plain.items()}
    # In one entry, because safetensors writes several in any order: equal arrays make equal files.
    header = {
        "bearray": json.dumps({"kind": kind, "version": version, "facts": dict(facts), "crc32": checksums})
    }
    new = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        new.touch()
        mode = new.stat().st_mode  # what the user's umask gives; safetensors makes files private
        save_file(plain, new, metadata=header)
        new.chmod(mode)
        os.replace(new, target)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"cannot write {target}: {error}") from error
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


def read_arrays(
    path: str | os.PathLike[str], *, kind: str, version: int
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Map a file into memory.

    Returns:
        (arrays as CPU tensors on the mapping, facts). Writing into a tensor changes this process's copy of
        the page, never the file.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is not such a file, of another version, cut short or damaged; the message names it.
        StorageError: it cannot be read.
    """
    target = Path(path)
    if not target.is_file():
        raise MissingFileError(f"{target} does not exist")
    try:
        with safe_open(target, framework="pt") as file:
            header = _header(target, file.metadata() or {}, kind, version)
            names = list(file.keys())
            _verify(target, names, _numbers(header, "crc32"))
            return {name: file.get_tensor(name) for name in names}, _numbers(header, "facts")
    except DataError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read {target}: {error}") from error
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, MemoryError) as error:
        raise DataError(f"{target} is damaged or not a file of a {kind}: {error}") from error


def _header(path: Path, metadata: dict[str, str], kind: str, version: int) -> dict[str, object]:
    header = parse_json(metadata.get("bearray", "{}"))
    if not isinstance(header, dict) or header.get("kind") != kind:
        found = header.get("kind") if isinstance(header, dict) else header
        raise DataError(f"{path} is not a file of a {kind}: its header says {found!r}")
    if header.get("version") != version:
        raise DataError(
            f"{path} holds a {kind} of version {header.get('version')!r}; this bearray reads version "
            f"{version}: save it again"
        )
    return header


def _numbers(header: dict[str, object], name: str) -> dict[str, int]:
    numbers = header.get(name)
    if not isinstance(numbers, dict) or not all(type(n) is int for n in numbers.values()):
        raise ValueError(f"{name} in its header is {numbers!r} where numbers by name must stand")
    return numbers


def _verify(path: Path, names: list[str], checksums: dict[str, int]) -> None:
    """Compare the checksums with the file's content, without mapping it."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")  # the format: header size, header, arrays
        layout = json.loads(file.read(size))
        for name in names:
            start, end = layout[name]["data_offsets"]
            file.seek(8 + size + start)
            found, left = 0, end - start
            while left > 0 and (block := file.read(min(left, _BLOCK))):
                found, left = zlib.crc32(block, found), left - len(block)
            if found != checksums[name]:
                raise DataError(f"{path} is damaged: array {name!r} does not match its checksum")


def require_int32(
    path: str | os.PathLike[str], arrays: Mapping[str, Tensor], sizes: Mapping[str, int]
) -> None:
    """Check that a file's arrays are flat int32 of the given sizes.

    Raises:
        DataError: an array is missing or different; the message names it and what it should be.
    """
    for name, size in sizes.items():
        found = arrays.get(name)
        if found is None:
            raise DataError(f"{path} has no array {name!r}")
        if found.dtype != torch.int32 or list(found.shape) != [size]:
            raise DataError(
                f"{path}: array {name!r} is {str(found.dtype).removeprefix('torch.')} {list(found.shape)}; "
                f"it must be int32 [{size}]"
            )
