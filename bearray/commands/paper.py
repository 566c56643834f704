"""Every table and figure of the BEAR paper (arXiv 2601.22925): what is missing is run, a document has ours
beside theirs. The same command again continues, or adds what else is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from bearray.paper.config import PaperConfig, defaults


def paper(arguments: Sequence[str]) -> int:
    """`bearray paper`, the same as sweeps/paper.py: the exit code."""
    from bearray.paper.main import run

    return run(recipe, arguments, prog="bearray paper")


def recipe() -> PaperConfig:
    """The paper's own settings."""
    return defaults()
