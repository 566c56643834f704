"""What the paper is made of: parts, each the runs of one data set, backbone and base model; and what every
table and figure needs of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from bearray.config import config_hash
from bearray.method_names import method_name
from bearray.paper.config import D3, PaperConfig

K = TypeVar("K")

TITLES: dict[tuple[str, int], str] = {
    ("table", 1): "Data sets",
    ("table", 2): "All methods",
    ("table", 3): "Other backbones",
    ("table", 4): "Sizes of the base model",
    ("table", 5): "Objective (3.1) itself, on a sample of users",
    ("figure", 3): "How often beam search prunes deserving targets (SFT)",
    ("figure", 4): "Prunings that violate condition (3.2)",
    ("figure", 5): "Cost and accuracy of objective (3.1)",
    ("figure", 6): "Pruning rate by objective",
    ("figure", 7): "BEAR on S-DPO",
    ("figure", 8): "Sensitivity to lambda and xi",
    ("figure", 9): "Cost and accuracy of all methods",
}
"""What each shows, in our words."""

COMPARED = ("sft", "msl", "bear")
"""Methods of Tables 3 and 4, and of Figure 6."""
SAMPLE_METHODS = ("sft", "bear", "beam_simulation")
"""Methods of Table 5."""
PREFERENCE_METHODS = ("sdpo", "sdpo_bear")
"""Methods of Figure 7."""


@dataclass(frozen=True, order=True)
class Part:
    """The runs of one data set, backbone and base model; one sweep's storage."""

    dataset: str
    backbone: str
    base: str
    """As the user named it."""
    sampled: bool = False
    """Of a sample of the data set's users."""

    @property
    def data_name(self) -> str:
        """The data set's name, the sample's own where it is one."""
        return f"{self.dataset}-s" if self.sampled else self.dataset

    @property
    def folder(self) -> str:
        """Below the storage: DATASET/BACKBONE-MODEL; a hash keeps folders of one name apart."""
        last = re.sub(r"[^a-z0-9.]+", "-", self.base.rstrip("/").rpartition("/")[2].lower()).strip("-")
        apart = f"-{config_hash(self.base, 4)}" if "/" in self.base else ""
        return f"{self.data_name}/{self.backbone}-{last}{apart}"


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Runs and measurements, by what they are of."""

    methods: Mapping[Part, frozenset[str]] = field(default_factory=dict)
    """Objectives to be trained and tested."""
    baselines: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By data set."""
    d3: frozenset[Part] = frozenset()
    """Parts whose SFT runs are decoded with D3."""
    pruning: Mapping[Part, frozenset[str]] = field(default_factory=dict)
    """Methods whose prunings are measured, with the first seed."""
    timing: Mapping[Part, frozenset[str]] = field(default_factory=dict)
    """Methods whose training steps are timed."""
    sensitivity: frozenset[Part] = frozenset()
    """Parts in whose BEAR lambda and xi are varied."""

    def __or__(self, other: Needs) -> Needs:
        return Needs(
            methods=_joined(self.methods, other.methods),
            baselines=_joined(self.baselines, other.baselines),
            d3=self.d3 | other.d3,
            pruning=_joined(self.pruning, other.pruning),
            timing=_joined(self.timing, other.timing),
            sensitivity=self.sensitivity | other.sensitivity,
        )


def elements(config: PaperConfig) -> list[tuple[str, int]]:
    """What is asked for: ("table", 2), ..., ("figure", 9)."""
    return [*(("table", n) for n in config.tables), *(("figure", n) for n in config.figures)]


def base_part(config: PaperConfig, dataset: str) -> Part:
    """The part of Table 2."""
    return Part(dataset, "bigrec", config.base_model)


def sample_parts(config: PaperConfig) -> list[Part]:
    """The parts of Table 5."""
    names = [name for name in config.datasets if name in config.sampled]
    return [Part(name, "bigrec", config.base_model, sampled=True) for name in names]


def backbone_parts(config: PaperConfig, dataset: str) -> list[Part]:
    """The parts of Table 3."""
    return [Part(dataset, backbone, config.base_model) for backbone in config.backbones]


def size_parts(config: PaperConfig, dataset: str) -> list[Part]:
    """The parts of Table 4 that are run."""
    sizes = (config.smaller_model, config.larger_model)
    return [Part(dataset, "bigrec", base) for base in sizes if base is not None]


def trained(config: PaperConfig) -> list[str]:
    """The rows of Table 2 that are objectives."""
    return [method for method in config.methods if method != D3]


def needs_of(config: PaperConfig, kind: str, number: int) -> Needs:
    """What a table or figure needs."""
    mains = [base_part(config, name) for name in config.datasets]
    rows = frozenset(trained(config))
    compared = rows & frozenset(COMPARED)
    match kind, number:
        case "table", 2:
            return Needs(
                methods=dict.fromkeys(mains, rows),
                baselines={name: frozenset(config.baselines) for name in config.datasets},
                d3=frozenset(mains) if D3 in config.methods else frozenset(),
            )
        case "table", 3:
            parts = [part for name in config.datasets for part in backbone_parts(config, name)]
            return Needs(methods=dict.fromkeys(parts, frozenset(COMPARED)))
        case "table", 4:
            parts = [part for name in config.datasets for part in size_parts(config, name)]
            return Needs(methods=dict.fromkeys(parts, frozenset(COMPARED)))
        case "table", 5:
            return Needs(methods=dict.fromkeys(sample_parts(config), frozenset(SAMPLE_METHODS)))
        case "figure", (3 | 4):
            sft = frozenset({"sft"})
            return Needs(methods=dict.fromkeys(mains, sft), pruning=dict.fromkeys(mains, sft))
        case "figure", 5:
            samples = dict.fromkeys(sample_parts(config), frozenset(SAMPLE_METHODS))
            return Needs(methods=samples, timing=samples)
        case "figure", 6:
            return Needs(methods=dict.fromkeys(mains, compared), pruning=dict.fromkeys(mains, compared))
        case "figure", 7:
            return Needs(methods=dict.fromkeys(mains, frozenset(PREFERENCE_METHODS)))
        case "figure", 8:
            bear = frozenset({"bear"})
            return Needs(methods=dict.fromkeys(mains, bear), sensitivity=frozenset(mains))
        case "figure", 9:
            return Needs(methods=dict.fromkeys(mains, rows), timing=dict.fromkeys(mains, rows))
        case _:
            return Needs()


def needs(config: PaperConfig) -> Needs:
    """What all that is asked for needs together: a run needed twice is in it once."""
    found = Needs()
    for kind, number in elements(config):
        found |= needs_of(config, kind, number)
    return found


def all_methods(config: PaperConfig, part: Part) -> tuple[str, ...]:
    """Every method that a part has in any table or figure, asked for now or not, so that its sweep's settings
    stay the same when another element is asked for later."""
    everything = [needs_of(config, kind, number) for kind, number in TITLES]
    found = {method for each in everything for method in each.methods.get(part, ())}
    order = [*trained(config), *SAMPLE_METHODS, *PREFERENCE_METHODS]
    return tuple(dict.fromkeys(method for method in order if method in found))


def _joined(a: Mapping[K, frozenset[str]], b: Mapping[K, frozenset[str]]) -> dict[K, frozenset[str]]:
    return {key: a.get(key, frozenset()) | b.get(key, frozenset()) for key in {**a, **b}}


def labels(methods: Iterable[str]) -> str:
    """BEAR, MSL, SFT."""
    return ", ".join(sorted(map(method_name, methods)))
