"""Configs as plain values and back: overrides by dotted name, hashes, differences."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from bearray.config.checks import require
from bearray.errors import ConfigError

C = TypeVar("C")


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON values (tuples become lists)."""
    return typing.cast("dict[str, Any]", json.loads(json.dumps(dataclasses.asdict(config))))


def from_dict(cls: type[C], values: Mapping[str, Any], where: str = "") -> C:
    """Build a config from plain values, the inverse of `to_dict`.

    Raises:
        ConfigError: an unknown field, or a value of the wrong type; the message has the field's full name.
    """
    require(isinstance(values, Mapping), where or cls.__name__, values, "a mapping of field names to values")
    hints = typing.get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    built: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{where}.{key}" if where else str(key)
        if key not in known:
            raise ConfigError(f"unknown setting {name!r}; known here: {', '.join(sorted(known))}")
        built[key] = _coerce(hints[key], value, name)
    return cls(**built)


def _coerce(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value, name)  # type: ignore[arg-type]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        require(value in args, name, value, f"one of {', '.join(map(repr, args))}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _coerce(next(a for a in args if a is not type(None)), value, name)
    if origin is tuple:
        require(isinstance(value, (list, tuple)), name, value, "a list")
        inner = [args[0]] * len(value) if len(args) == 2 and args[1] is Ellipsis else list(args)
        require(len(inner) == len(value), name, value, f"a list of {len(inner)} values")
        return tuple(_coerce(a, v, name) for a, v in zip(inner, value, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wrong_bool = isinstance(value, bool) and hint is not bool
    require(isinstance(value, hint) and not wrong_bool, name, value, f"of type {hint.__name__}")
    return value


def override(config: C, changes: Mapping[str, Any]) -> C:
    """A copy with some fields changed, by dotted name: `override(run, {"objective.lam": 0.5})`.

    Raises:
        ConfigError: a name that is not a field, or a value that cannot work. Sweeps call this on every axis
            before anything starts, so a typing error costs seconds and not a night.
    """
    tree = to_dict(config)
    for name, value in changes.items():
        *parents, last = name.split(".")
        node = tree
        for parent in parents:
            child = node.get(parent)
            if not isinstance(child, dict):
                have = ", ".join(sorted(node))
                raise ConfigError(f"unknown setting {name!r}: {parent!r} is not a group; known here: {have}")
            node = child
        if last not in node:
            raise ConfigError(f"unknown setting {name!r}; known here: {', '.join(sorted(node))}")
        node[last] = value
    return from_dict(type(config), tree)


def config_hash(config: Any, length: int = 10) -> str:
    """A short content hash of a config (or of any JSON value): equal settings, equal name."""
    plain = to_dict(config) if dataclasses.is_dataclass(config) else config
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def leaves(tree: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """The settings of a `to_dict` tree by their full names, such as "train.lr", in its order."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{where}.{key}" if where else str(key)
        found |= leaves(value, name) if isinstance(value, Mapping) else {name: value}
    return found


def differences(old: Mapping[str, Any], new: Mapping[str, Any], where: str = "") -> list[str]:
    """What changed between two `to_dict` trees, as lines "train.lr: 0.0001 -> 0.001"."""
    lines: list[str] = []
    for key in sorted({*old, *new}):
        name = f"{where}.{key}" if where else key
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, name)
        elif a != b:
            lines.append(f"{name}: {a!r} -> {b!r}")
    return lines
