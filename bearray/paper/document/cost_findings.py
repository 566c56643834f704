"""The paper's two findings on what training costs."""

from __future__ import annotations

from bearray.efficiency.statistics import LEVEL, Interval
from bearray.method_names import NAMES
from bearray.paper.document.finding import DOES_NOT, HOLDS, NOT_RUN_YET, OPEN, Finding, Verdict
from bearray.paper.document.measured import UNTIMED, costs_of
from bearray.paper.document.read import Material
from bearray.paper.parts import Part
from bearray.report.published import published

NO_MORE = 1.05
"""Times SFT's step that still count as no more than it."""


def beam_simulation_is_costly(material: Material, part: Part) -> Finding:
    """(3.1) takes more than 4.45 times SFT's time."""
    stated = float(published()["text"]["beam_simulation_times_sft"])
    claim = f"Training on objective (3.1) takes more than {stated:g} times as long as SFT"
    ratio = _ratio(material, part, "beam_simulation")
    if ratio is None:
        return _untimed(part, claim, "beam_simulation")
    bound = HOLDS if ratio.low > stated else DOES_NOT if ratio.high < stated else OPEN
    told = f"{part.data_name}: {_words(ratio)}. Here the search shares the training step's prompts."
    return Finding(dataset=part.dataset, claim=claim, verdict=_sure(ratio, bound), told=told)


def bear_costs_no_more(material: Material, part: Part, sample: Part | None) -> Finding:
    """BEAR takes no longer than SFT, by the whole data set's timing or else its sample's."""
    claim = f"Training with BEAR takes no longer than SFT (at most {NO_MORE:g} times as long)"
    places = [p for p in (part, sample) if p is not None]
    for place in places:
        ratio = _ratio(material, place, "bear")
        if ratio is not None:
            bound = HOLDS if ratio.high <= NO_MORE else DOES_NOT if ratio.low > NO_MORE else OPEN
            told = f"{place.data_name}: {_words(ratio)}."
            return Finding(dataset=part.dataset, claim=claim, verdict=_sure(ratio, bound), told=told)
    return _untimed(part, claim, "bear")


def _ratio(material: Material, part: Part, method: str) -> Interval | None:
    costs = costs_of(material, part)
    cost = costs.of(method) if costs else None
    return cost.timed.ratio if cost else None


def _sure(ratio: Interval, verdict: Verdict) -> Verdict:
    """A verdict by an interval, if that covers what it must: with fewer than six rounds none does."""
    return verdict if ratio.coverage >= LEVEL else OPEN


def _words(ratio: Interval) -> str:
    return (
        f"{ratio.value:.2f} times SFT's step, paired by round ({ratio.coverage:.0%} interval over rounds "
        f"{ratio.low:.2f} to {ratio.high:.2f})"
    )


def _untimed(part: Part, claim: str, method: str) -> Finding:
    told = f"{NAMES[method]}: {UNTIMED}."
    return Finding(dataset=part.dataset, claim=claim, verdict=NOT_RUN_YET, told=told)
