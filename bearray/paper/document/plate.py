"""What a figure of the document is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bearray.paper.config import PaperConfig
from bearray.paper.parts import Part, base_part
from bearray.report.figures import Figure
from bearray.report.records import Run


@dataclass(frozen=True, kw_only=True)
class Plate:
    """One figure of the paper, as far as there are numbers for it."""

    number: int
    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    """Its numbers; None where there is none."""
    figures: tuple[Figure, ...]
    missing: tuple[str, ...]
    """What is not in it, and why, in words without full stops."""
    notes: tuple[str, ...] = ()
    runs: tuple[Run, ...] = ()
    """Those it shows."""


def mains(config: PaperConfig) -> list[Part]:
    """The parts of Table 2."""
    return [base_part(config, name) for name in config.datasets]
