"""What a check has to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "note", "warning", "problem"]
"""ok; note: worth knowing; warning: a run may be slow or end early; problem: a run would stop."""


@dataclass(frozen=True)
class Finding:
    """One check's result."""

    check: str
    status: Status
    text: str
    """What was found."""
    mend: str = ""
    """What to do about it; empty where nothing is wrong."""
