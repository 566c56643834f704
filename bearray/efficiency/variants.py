"""Objectives and decoders as they are named on a command line: NAME or NAME:FIELD=VALUE,FIELD=VALUE."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from bearray.config import DecodingConfig, ObjectiveConfig, RunConfig, override
from bearray.decoding.registry import list_decoders
from bearray.efficiency.config import ALL, NONE
from bearray.errors import ConfigError
from bearray.objectives.registry import OBJECTIVES, make_objective

DROPOUT = "lora_dropout"
"""A setting of a timed objective that is the adapter's and not the loss's: without it nothing in the training
pass is random, and objective (3.1) needs no pass of its own for its prompts."""
GENERATE = "generate"
"""`transformers`' own beam search over the trie, beside the decoders."""

C = TypeVar("C", ObjectiveConfig, DecodingConfig)


@dataclass(frozen=True)
class TimedObjective:
    """An objective to time."""

    config: ObjectiveConfig
    lora_dropout: float
    """Of the adapter that it trains."""


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


def objective_variants(texts: Sequence[str], base: RunConfig) -> dict[str, TimedObjective]:
    """The objectives to time, by label, in the order given; all registered ones for "all".

    Args:
        texts: as on the command line. base: the run; what a text does not set is as it is there.

    Raises:
        ConfigError: an unknown objective or field, a value that cannot work, or one given twice.
    """
    names = list(OBJECTIVES) if list(texts) == [ALL] else [t for t in texts if t != NONE]
    found: dict[str, TimedObjective] = {}
    for text in _distinct(names, "objectives"):
        name, settings = parse_variant(text, OBJECTIVES, "objective")
        where = f"objective {text!r}"
        dropout = _dropout(settings, base, where)
        config = _changed(base.objective, settings, "name", name, where, more=(DROPOUT,))
        make_objective(config)
        found[text] = TimedObjective(config, dropout)
    return found


def _dropout(settings: dict[str, Any], base: RunConfig, where: str) -> float:
    """The LoRA dropout among a variant's settings, which is taken out of them, or else the run's."""
    if DROPOUT not in settings:
        return base.model.lora_dropout
    if base.model.lora_r == 0:
        raise ConfigError(f"{where} sets {DROPOUT}, but model.lora_r is 0: there is no adapter to have one")
    rate = settings.pop(DROPOUT)
    try:
        return override(base, {f"model.{DROPOUT}": rate}).model.lora_dropout
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


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


def _changed(
    base: C, settings: dict[str, Any], key: str, name: str, where: str, more: Sequence[str] = ()
) -> C:
    """`base` with a variant's settings; `more` are settings that it may have beside the fields of `base`."""
    fields: set[str] = {f.name for f in dataclasses.fields(base)} - {key}
    for field in settings:
        if field not in fields:
            known = ", ".join(sorted({*fields, *more}))
            raise ConfigError(f"{where} has no setting {field!r}; known: {known}")
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
