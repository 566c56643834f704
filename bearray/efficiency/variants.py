"""Objectives and decoders as they are named on a command line: NAME or NAME:FIELD=VALUE,FIELD=VALUE."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from bearray.config import DecodingConfig, ObjectiveConfig, override
from bearray.decoding.registry import list_decoders
from bearray.efficiency.config import ALL, NONE
from bearray.errors import ConfigError
from bearray.objectives.registry import OBJECTIVES, make_objective

GENERATE = "generate"
"""`transformers`' own beam search over the trie, beside the decoders."""

C = TypeVar("C", ObjectiveConfig, DecodingConfig)


@dataclass(frozen=True)
class Decoder:
    """A decoder to time."""

    config: DecodingConfig
    peer: bool = False
    """`transformers.generate` does it, instead of bearray."""


def parse_variant(text: str, known: Collection[str], what: str) -> tuple[str, dict[str, Any]]:
    """Name and settings of a variant; values are read as JSON where they are, else as text.

    Raises:
        ConfigError: an unknown name, or not in the form NAME:FIELD=VALUE,...
    """
    name, colon, rest = text.partition(":")
    if name not in known:
        raise ConfigError(f"{what} {text!r}: there is no {name!r}; known: {', '.join(sorted(known))}")
    settings: dict[str, Any] = {}
    for part in rest.split(",") if colon else []:
        field, equals, value = (piece.strip() for piece in part.partition("="))
        if not (field and equals and value):
            raise ConfigError(f"{what} {text!r}: {part!r} must be FIELD=VALUE, as in {name}:field=value")
        if field in settings:
            raise ConfigError(f"{what} {text!r}: {field} is given twice")
        settings[field] = _value(value)
    return name, settings


def objective_variants(texts: Sequence[str], base: ObjectiveConfig) -> dict[str, ObjectiveConfig]:
    """The objectives to time, by label, in the order given; all registered ones for "all".

    Raises:
        ConfigError: an unknown objective or field, a value that cannot work, or one given twice.
    """
    names = list(OBJECTIVES) if list(texts) == [ALL] else [t for t in texts if t != NONE]
    found: dict[str, ObjectiveConfig] = {}
    for text in _distinct(names, "objectives"):
        name, settings = parse_variant(text, OBJECTIVES, "objective")
        config = _changed(base, settings, "name", name, f"objective {text!r}")
        make_objective(config)
        found[text] = config
    return found


def decoder_variants(texts: Sequence[str], base: DecodingConfig) -> dict[str, Decoder]:
    """The decoders to time, by label, in the order given; for "all" every one, beam search under both
    normalisers, and `transformers.generate`.

    Raises:
        ConfigError: as `objective_variants`.
    """
    own = [str(info["name"]) for info in list_decoders()]
    names = [t for t in texts if t != NONE]
    if list(texts) == [ALL]:
        names = ["beam", "beam:normalize=full", *(n for n in own if n != "beam"), GENERATE]
    found: dict[str, Decoder] = {}
    for text in _distinct(names, "decoders"):
        name, settings = parse_variant(text, [*own, GENERATE], "decoder")
        peer = name == GENERATE
        config = _changed(base, settings, "method", "beam" if peer else name, f"decoder {text!r}")
        if peer and config.exclude_history:
            raise ConfigError(f"decoder {text!r}: generate leaves nothing out; exclude_history must be false")
        found[text] = Decoder(config, peer)
    return found


def _changed(base: C, settings: dict[str, Any], key: str, name: str, where: str) -> C:
    fields = {f.name for f in dataclasses.fields(base)} - {key}
    for field in settings:
        if field not in fields:
            raise ConfigError(f"{where} has no setting {field!r}; known: {', '.join(sorted(fields))}")
    try:
        return override(base, {**settings, key: name})
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _value(text: str) -> Any:
    if text.lower() in ("none", "null"):
        return None
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except ValueError:
        return text


def _distinct(texts: Sequence[str], what: str) -> Sequence[str]:
    twice = sorted({t for t in texts if texts.count(t) > 1})
    if twice:
        raise ConfigError(f"{what}: {', '.join(twice)} given more than once")
    return texts
