"""The paper's findings on what beam search prunes."""

from __future__ import annotations

from bearray.method_names import NAMES
from bearray.paper.document.finding import DOES_NOT, HOLDS, NOT_RUN_YET, OPEN, Finding
from bearray.paper.document.measured import pruning_of, rate_at, sure
from bearray.paper.document.read import Material
from bearray.paper.parts import Part
from bearray.report.pruning import Estimate
from bearray.report.published import published


def _words(share: Estimate) -> str:
    return f"{share.value:.1%} (95% interval {share.low:.1%} to {share.high:.1%})"


def prunes_less(material: Material, part: Part, other: str) -> Finding:
    """PR@10 is lower with BEAR than with another objective."""
    claim = f"Beam search prunes fewer deserving targets with BEAR than with {NAMES[other]} (PR@10, exact)"
    shares: dict[str, Estimate] = {}
    lacking = []
    for name in ("bear", other):
        method = material.method(part, name)
        row = pruning_of(method)
        rate = rate_at(row, 10)
        if rate is not None and rate.exact.of:
            shares[name] = sure(rate.exact)
        elif row is not None:
            lacking.append(f"{NAMES[name]}: no target deserves a place")
        else:
            why = "prunings not measured" if method.tested else method.state
            lacking.append(f"{NAMES[name]}: {why}")
    if lacking:
        measured = all(line.endswith("no target deserves a place") for line in lacking)
        verdict = OPEN if measured else NOT_RUN_YET
        return Finding(dataset=part.dataset, claim=claim, verdict=verdict, told=f"{'; '.join(lacking)}.")
    bear, base = shares["bear"], shares[other]
    verdict = OPEN
    if bear.high < base.low:
        verdict = HOLDS
    elif bear.low > base.high:
        verdict = DOES_NOT
    told = (
        f"BEAR {_words(bear)}, {NAMES[other]} {_words(base)}. Decided where the two intervals do not "
        "overlap, which asks for more than a paired test would."
    )
    if other == "sft" and (stated := published()["text"]["pruned_share"].get(part.dataset.casefold())):
        told += f" The paper has {stated:.2%} for SFT."
    return Finding(dataset=part.dataset, claim=claim, verdict=verdict, told=told)


def violations(material: Material, part: Part) -> Finding:
    """Condition (3.2) is violated by most of what is pruned."""
    stated = float(published()["text"]["violating_more_than"])
    claim = f"More than {stated:.0%} of prunings violate condition (3.2) (SFT)"
    method = material.method(part, "sft")
    row = pruning_of(method)
    if row is None or not row.any_violation.of:
        why = "nothing was pruned" if row else "prunings not measured" if method.tested else method.state
        verdict = OPEN if row else NOT_RUN_YET
        return Finding(dataset=part.dataset, claim=claim, verdict=verdict, told=f"SFT: {why}.")
    share = sure(row.any_violation)
    verdict = HOLDS if share.low > stated else DOES_NOT if share.high < stated else OPEN
    told = f"{_words(share)}, {row.any_violation.count} of {row.any_violation.of} prunings."
    return Finding(dataset=part.dataset, claim=claim, verdict=verdict, told=told)
