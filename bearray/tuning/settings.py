"""Settings that only some methods of a sweep have: `sdpo,dpo:train.lr=2e-4`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bearray.config import RunConfig, override
from bearray.errors import ConfigError

NOT_BY_METHOD = ("data.path", "model.base", "objective.name", "train.seed")
"""Settings that the sweep itself gives each run."""

EXAMPLE = "METHOD:SETTING=VALUE, such as sdpo:train.lr=2e-4"


def method_settings(
    texts: Sequence[str], methods: Mapping[str, str], run: RunConfig
) -> dict[str, dict[str, Any]]:
    """What each method's runs change, by dotted name.

    Args:
        texts: "METHOD:SETTING=VALUE", also with several methods, separated by commas. The value is JSON, or
            else a plain word: `sft:decoding.normalize=full`, `bear:model.lora_targets=["q_proj"]`.
        methods: the objective of each of the sweep's methods.
        run: what every run starts from; the changes are tried on it.

    Raises:
        ConfigError: a text of another shape, a method that is not in the sweep, a setting that does not
            exist, cannot have this value, or is given twice.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        names, setting, value = of_methods(text, "method_settings", EXAMPLE, methods)
        for method in names:
            mine = found.setdefault(method, {})
            if setting in mine:
                raise ConfigError(f"method_settings gives {method} {setting} twice")
            mine[setting] = value_of(value)
            try:
                override(run, {**mine, "objective.name": methods[method]})
            except ConfigError as error:
                raise ConfigError(f"method_settings has {text!r}: {error}") from error
    return found


def of_methods(text: str, option: str, shape: str, methods: Mapping[str, str]) -> tuple[list[str], str, str]:
    """The methods, the setting and the value of METHOD,METHOD:SETTING=VALUE.

    Args:
        option: where the text is from. shape: what it must look like. methods: of the sweep.

    Raises:
        ConfigError: it has another shape, a method that is not in the sweep, or a setting of the sweep's own.
    """
    names, colon, change = text.partition(":")
    setting, equals, value = change.partition("=")
    if not (names and colon and setting and equals and value):
        raise ConfigError(f"{option} has {text!r}; it must be {shape}")
    if setting in NOT_BY_METHOD:
        raise ConfigError(f"{option} has {text!r}, but {setting} is the sweep's own")
    for method in names.split(","):
        if method not in methods:
            raise ConfigError(
                f"{option} has {text!r}, but {method!r} is not in methods ({', '.join(methods)})"
            )
    return names.split(","), setting, value


def value_of(text: str) -> Any:
    """JSON, or else a plain word."""
    try:
        return json.loads(text)
    except ValueError:
        return text
