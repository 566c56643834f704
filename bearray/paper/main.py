"""Every table and figure of the BEAR paper (arXiv 2601.22925): what is missing is run, a document has ours
beside theirs. The same command again continues, or adds what else is asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bearray.paper.config import PaperConfig, defaults, scaled
from bearray.tuning.main import exit_code, parse


def recipe() -> PaperConfig:
    """The paper's own settings; the command line is described by this module's words."""
    return defaults()


def main(arguments: Sequence[str] | None = None) -> None:
    """What `sweeps/paper.py` does; exits as `run` returns."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str], *, prog: str | None = None) -> int:
    """Parse and work; the exit code.

    Args:
        arguments: the command line. prog: what --help calls the program.
    """

    def work() -> None:
        config: PaperConfig = parse(recipe, arguments, prog=prog, at_scale=scaled)
        from bearray.paper.run import run_paper  # ray only once the arguments are known to be right

        run_paper(config)

    return exit_code(work)
