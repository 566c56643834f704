"""`bearray paper`: the same as sweeps/paper.py."""

from __future__ import annotations

from collections.abc import Sequence


def paper(arguments: Sequence[str]) -> int:
    """The exit code."""
    from bearray.paper.main import run

    return run(arguments, prog="bearray paper")
