"""The command line of `bearray paper` and sweeps/paper.py."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from bearray.paper.config import PaperConfig
from bearray.tuning.main import exit_code, parse

Recipe = Callable[[], PaperConfig]


def main(recipe: Recipe) -> None:
    """What `sweeps/paper.py` does with the process's arguments; exits as `run` returns."""
    sys.exit(run(recipe, sys.argv[1:]))


def run(recipe: Recipe, arguments: Sequence[str], *, prog: str | None = None) -> int:
    """Parse and work; the exit code.

    Args:
        recipe: the settings before the command line's; its module's words describe the command.
        arguments: the command line. prog: what --help calls the program.
    """

    def work() -> None:
        config = parse(recipe, arguments, prog=prog)
        from bearray.paper.run import run_paper  # ray only once the arguments are known to be right

        run_paper(config)

    return exit_code(work)
