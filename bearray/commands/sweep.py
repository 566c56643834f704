"""`bearray sweep --data-dir DIR`: what `sweeps/*.py` do, for any prepared data set."""

from __future__ import annotations

from collections.abc import Sequence

from bearray.tuning.config import SweepConfig
from bearray.tuning.main import run


def recipe() -> SweepConfig:
    """The paper's settings; --data-dir, --storage and --base-model say on what."""
    return SweepConfig()


def sweep(arguments: Sequence[str]) -> int:
    """Parse and run; the exit code."""
    return run(recipe, arguments, prog="bearray sweep")
