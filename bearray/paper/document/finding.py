"""One finding of the paper, and what came out of it here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["holds", "does not hold", "undecided", "not run"]
HOLDS: Verdict = "holds"
DOES_NOT: Verdict = "does not hold"
OPEN: Verdict = "undecided"
NOT_RUN_YET: Verdict = "not run"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the paper says, and whether it is so here."""

    dataset: str
    claim: str
    """The paper's, in a few words."""
    verdict: Verdict
    told: str
    """The numbers, or what is lacking, in sentences."""
