"""`bearray bench objectives` and `sweeps/efficiency.py`: time objectives and decoders."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from bearray.efficiency.config import EfficiencyConfig
from bearray.tuning.main import exit_code, parse

Prepare = Callable[[EfficiencyConfig], None]


def recipe() -> EfficiencyConfig:
    """The paper's settings; --data-dir, --storage and --base-model say on what."""
    return EfficiencyConfig()


def objectives(arguments: Sequence[str]) -> int:
    """`bearray bench objectives`: the exit code."""
    return run(recipe, arguments, prog="bearray bench objectives")


def main(recipe: Callable[[], EfficiencyConfig], *, prepare: Prepare | None = None) -> None:
    """What `sweeps/efficiency.py` does with the process's arguments; exits as `run` returns."""
    sys.exit(run(recipe, sys.argv[1:], prepare=prepare))


def run(
    recipe: Callable[[], EfficiencyConfig],
    arguments: Sequence[str],
    *,
    prepare: Prepare | None = None,
    prog: str | None = None,
) -> int:
    """Parse, measure, write; the exit code.

    Args:
        recipe: the benchmark's own settings; those on the command line win.
        arguments: the command line.
        prepare: called with the final settings before anything is checked, to make data that can be made.
        prog: what --help calls the program.
    """

    def work() -> None:
        config = parse(recipe, arguments, prog=prog)
        if prepare is not None:
            prepare(config)
        from bearray.tuning.timing import run_benchmark

        run_benchmark(config)

    return exit_code(work)
