"""Checks of settings; each names the field, its value and what would be right."""

from __future__ import annotations

import math

from bearray.errors import ConfigError


def require(condition: bool, name: str, value: object, wanted: str) -> None:
    """Raises ConfigError "NAME is VALUE; it must be WANTED" where the condition fails."""
    if not condition:
        raise ConfigError(f"{name} is {value!r}; it must be {wanted}")


def positive(name: str, value: float) -> None:
    """Raises ConfigError unless the value is finite and above 0."""
    require(math.isfinite(value) and value > 0, name, value, "a number above 0")


def at_least(name: str, value: float, low: float) -> None:
    """Raises ConfigError unless the value is finite and at least `low`."""
    require(math.isfinite(value) and value >= low, name, value, f"at least {low:g}")


def optional_count(name: str, value: int | None) -> None:
    """Raises ConfigError unless the value is None or at least 1."""
    require(value is None or value >= 1, name, value, "at least 1, or None")
