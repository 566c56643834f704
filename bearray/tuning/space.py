"""What a search varies: settings of a method, each over a range or among some values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bearray.config import RunConfig, override
from bearray.errors import ConfigError
from bearray.tuning.settings import of_methods, value_of

LAMBDA_AND_XI = {"lam": "objective.lam", "xi": "objective.xi"}
"""Optuna's names for the two axes of search.methods -> the settings that they are."""

_SHAPE = "METHOD:SETTING=LOW..HIGH, or METHOD:SETTING=A|B|C"


@dataclass(frozen=True)
class Axis:
    """One setting that a search varies."""

    setting: str
    """Its dotted name in a run's settings."""
    low: float | None = None
    high: float | None = None
    """A range, both ends included; of whole numbers where both ends are."""
    values: tuple[Any, ...] = ()
    """Or the values to choose among."""

    @property
    def bounds(self) -> tuple[Any, ...]:
        """Values that show whether the run can have any: the ends of the range, or all."""
        return self.values or (self.low, self.high)


def search_space(
    texts: Sequence[str], methods: Mapping[str, str], run: RunConfig, *, log_scale: bool
) -> dict[str, dict[str, Axis]]:
    """The axes that are given for each method, by the setting's name.

    Args:
        texts: "METHOD:SETTING=LOW..HIGH" or "METHOD:SETTING=A|B|C", also with several methods, separated by
            commas: `sdpo,dpo:objective.beta=0.05..1`, `cft:train.lr=1e-4|2e-4`.
        methods: the objective of each of the sweep's methods.
        run: what every run starts from; the ends and values are tried on it.
        log_scale: ranges are sampled on a logarithmic scale, so that both ends must be above 0.

    Raises:
        ConfigError: a text of another shape, a method that is not in the sweep, a setting that does not
            exist, cannot have such a value, or is given twice; a range that is none.
    """
    found: dict[str, dict[str, Axis]] = {}
    for text in texts:
        names, setting, value = of_methods(text, "search.space", _SHAPE, methods)
        axis = _axis(text, setting, value, log_scale)
        for method in names:
            mine = found.setdefault(method, {})
            if setting in mine:
                raise ConfigError(f"search.space gives {method} {setting} twice")
            mine[setting] = axis
            for bound in axis.bounds:
                try:
                    override(run, {"objective.name": methods[method], setting: bound})
                except ConfigError as error:
                    raise ConfigError(f"search.space has {text!r}: {error}") from error
    return found


def _axis(text: str, setting: str, value: str, log_scale: bool) -> Axis:
    low, dots, high = value.partition("..")
    if not dots:
        values = tuple(value_of(one) for one in value.split("|"))
        if len(set(map(repr, values))) < max(2, len(values)) or any(
            isinstance(v, (list, dict)) for v in values
        ):
            raise ConfigError(
                f"search.space has {text!r}; it must be {_SHAPE}, with two or more different words or numbers"
            )
        return Axis(setting, values=values)
    ends = value_of(low), value_of(high)
    if not all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in ends):
        raise ConfigError(f"search.space has {text!r}; the ends of its range must be numbers")
    if not ends[0] < ends[1] or (log_scale and ends[0] <= 0):
        above = "0 < low < high, or search.log_scale false" if log_scale else "low < high"
        raise ConfigError(f"search.space has {text!r}; its range must have {above}")
    return Axis(setting, *ends)
