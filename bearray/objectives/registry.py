"""Which objectives there are. A new one is a file with an `Objective` and its class in the tuple below."""

from __future__ import annotations

from typing import Any, cast

from bearray.config import ObjectiveConfig
from bearray.errors import ConfigError
from bearray.objectives.base import Objective
from bearray.objectives.beam_simulation import BeamSimulation
from bearray.objectives.bear import BEAR
from bearray.objectives.best_of_n import BestOfN
from bearray.objectives.cft import CFT
from bearray.objectives.d2lr import D2LR
from bearray.objectives.dmpo import DMPO
from bearray.objectives.dpo import DPO
from bearray.objectives.flower import Flower
from bearray.objectives.grpo import GRPO
from bearray.objectives.igd import IGD
from bearray.objectives.msl import MSL
from bearray.objectives.rosepo import RosePO
from bearray.objectives.sdpo import SDPO
from bearray.objectives.sdpo_bear import SDPOBear
from bearray.objectives.sft import SFT
from bearray.objectives.sprec import SPRec

OBJECTIVES: dict[str, type[Objective]] = {
    cls.name: cls
    for cls in (
        SFT, MSL, BEAR, BeamSimulation, CFT, D2LR, IGD, SDPO, SDPOBear, DPO, DMPO, RosePO, SPRec,
        Flower, BestOfN, GRPO,
    )
}  # fmt: skip

REGULARISED = ("bear", "beam_simulation", "sdpo_bear")
"""Objectives that have lambda and xi, which a sweep can search."""


def make_objective(config: ObjectiveConfig) -> Objective:
    """The objective that `config.name` names, with the fields of `config` that it uses.

    Raises:
        ConfigError: no such objective, or a field with a value that cannot work.
    """
    if config.name not in OBJECTIVES:
        raise ConfigError(f"unknown objective {config.name!r}; known: {', '.join(sorted(OBJECTIVES))}")
    return OBJECTIVES[config.name].from_config(config)


def fields_used(config: ObjectiveConfig) -> frozenset[str]:
    """The fields of `config` that its objective, or what the step provides for it, depends on.

    Raises:
        ConfigError: as `make_objective`.
    """
    make_objective(config)
    reader = _Reader(config)
    objective = OBJECTIVES[config.name].from_config(cast(ObjectiveConfig, reader))
    used = {"name", *reader.read}
    if "reference" in objective.needs:
        used.add("reference")
    if objective.negatives is not None and objective.negatives.kind == "near":
        used.add("near_to")
    return frozenset(used)


class _Reader:
    """A config that remembers which of its fields were read."""

    def __init__(self, config: ObjectiveConfig) -> None:
        self.config = config
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self.config, name)


def list_objectives() -> list[dict[str, Any]]:
    """What `bearray objectives --json` prints: name, needs (sorted names) and source of each objective."""
    return [{"name": c.name, "needs": sorted(c.needs), "source": c.source} for c in OBJECTIVES.values()]
