"""What the JSON files of a storage must look like, so that no reader trips over a damaged or made-up one.

Only what is read is described; further entries are left alone, and only those marked "!" must be there.
"""

from __future__ import annotations

from typing import Any

from bearray.plain import Number, check_shape

_NULL = type(None)
_number = Number(null=True)
_count = Number(whole=True, low=0)
_rows = Number(whole=True, low=1, high=2**31)
_estimates: dict[str, Any] = {
    "n": _count,
    "users": _count,
    "*": {"mean": _number, "low": _number, "high": _number},
}
_GROUPS: dict[str, Any] = {
    "data": dict,
    "model": dict,
    "objective": {"name": str},
    "train": {"seed": _number, "init_adapter": (str, _NULL)},
    "decoding": {"normalize": str, "beam_width": Number(whole=True, low=1), "length_penalty": Number()},
    "evaluation": dict,
}
SHAPES: dict[str, Any] = {
    "config.json": {
        "run!": {**_GROUPS, "baseline": (dict, _NULL)},
        "method!": str,
        "dataset!": str,
        "base_model!": str,
        "role": str,
        "base_model_kind": (str, _NULL),
        "data_hash": (str, _NULL),
        "git": (str, _NULL),
        "created": (str, _NULL),
        "decoded_from": (str, _NULL),
        "versions": (dict, _NULL),
    },
    "result.json": {
        "status": str,
        "error": (str, _NULL),
        "stopped": (str, _NULL),
        "chosen": bool,
        "events": [str],
        "checkpoint": (str, _NULL),
        "best_epoch": Number(whole=True, low=0, null=True),
        "valid": {"*": _number},
        "seconds": {"train": _number, "valid": _number, "test": _number, "decoding": {"*": _number}},
        "test": {"*": {**dict.fromkeys(("all", "warm", "cold"), _estimates), "proven": _number}},
    },
    "sweep.json": {"sweep": dict, "data_stats": dict, "departures": [str], "dataset": str, "data_hash": str},
    "manifest.json": {"decoding": dict, "rows": _rows, "shard_size": Number(whole=True, low=1, high=2**31)},
}
"""By the file's own name."""


def check_file(value: Any, name: str, where: str) -> dict[str, Any]:
    """The content of a JSON file of a storage, checked.

    Args:
        value: what was parsed.
        name: the file's own name; files without a shape need only be objects.
        where: its path, for the message.

    Raises:
        DataError: it is of another shape; the message names file, entry and value.
    """
    check_shape(value, SHAPES.get(name, dict), where)
    found: dict[str, Any] = value
    return found
