"""How much longer a training step of each objective takes than SFT's."""

from __future__ import annotations

from dataclasses import dataclass

from bearray.planning.work import measured_facts


@dataclass(frozen=True)
class Factor:
    """A step of an objective over a step of SFT on the same windows."""

    value: float
    low: float
    high: float
    source: str


def factor(objective: str) -> Factor:
    """The objective's factor: measured on a CPU with a small model, by CPU time (docs/results of this
    project: benchmarks/results/efficiency-cpu-office.json), and never below 1.

    MSL and BEAR over the trie take less time than SFT. How much depends on the share of a window that its
    answer is, which differs between that benchmark and a large model's prompts, so it is not counted on.
    """
    facts = measured_facts()
    found = facts["objectives"].get(objective)
    if found is None:
        return Factor(1.0, 1.0, 3.0, "not measured: as SFT")
    value, low, high = (max(1.0, float(found[name])) for name in ("ratio", "low", "high"))
    return Factor(value, low, high, f"measured on a CPU ({facts['from']['objectives']})")
