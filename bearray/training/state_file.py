"""state.json of a checkpoint: how far the run was, and the sizes and checksums of all files beside it."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from bearray.plain import Number, check_shape, parse_json
from bearray.runs import inside

STATE = "state.json"
_SHAPE = {
    "epoch!": Number(whole=True, low=0),
    "objective!": {"*": Number()},
    "files": {"*": {"bytes!": Number(whole=True, low=0), "crc32!": Number(whole=True, low=0)}},
}


def read_state(folder: Path) -> dict[str, Any]:
    """state.json of a checkpoint whose files are all as it says they were written.

    Returns:
        {"epoch": finished epochs, "objective": its numbers, "files": {name: {"bytes", "crc32"}}, the last not
        in checkpoints of earlier versions}.

    Raises:
        OSError, ValueError: a file is missing, cut off or changed; the message names it.
    """
    try:
        state: dict[str, Any] = parse_json((folder / STATE).read_bytes())
    except ValueError as error:
        raise ValueError(f"{STATE} is not valid JSON: {error}") from error
    check_shape(state, _SHAPE, STATE)
    for name, told in state.get("files", {}).items():
        path = folder / inside(name)
        if not path.is_file():
            raise FileNotFoundError(f"{name} is missing")
        size = path.stat().st_size
        if size != told["bytes"]:
            raise ValueError(f"{name} has {size} bytes instead of {told['bytes']}")
        if _crc32(path) != told["crc32"]:
            raise ValueError(f"{name} is damaged: its checksum is another than when it was written")
    return state


def describe_files(folder: Path) -> dict[str, dict[str, int]]:
    """Size and checksum of all files in a folder, by their relative names."""
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f != folder / STATE)
    return {f.relative_to(folder).as_posix(): {"bytes": f.stat().st_size, "crc32": _crc32(f)} for f in files}


def _crc32(path: Path) -> int:
    found = 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            found = zlib.crc32(block, found)
    return found
