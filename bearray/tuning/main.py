"""The command line of a sweep: every `sweeps/*.py` and `bearray sweep` end here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from bearray.errors import BearrayError
from bearray.runs import OUT_OF_ORDER, cause_of
from bearray.tuning.config import CPU, SMOKE, Scale, SweepConfig, scaled
from bearray.tuning.interrupt import EXIT_CODE, interruptible

C = TypeVar("C")

Recipe = Callable[[], SweepConfig]
Scaling = Callable[[C, Scale], C]


def main(
    recipe: Recipe,
    arguments: Sequence[str] | None = None,
    *,
    prepare: Callable[[SweepConfig], None] | None = None,
    at_scale: Scaling[SweepConfig] | None = None,
) -> None:
    """Build the sweep from its recipe and the command line, and run it.

    The scale is applied to the recipe first, then every setting given on the command line, so an explicit
    setting always wins. Exits with 2 and one message for what a user can mend, without a traceback.

    Args:
        recipe: the sweep's own settings.
        arguments: instead of the process's.
        prepare: called with the final settings before anything is checked, to make data that can be made.
        at_scale: what --scale and --smoke do to the recipe, instead of `bearray.tuning.config.scaled`.
    """
    given = sys.argv[1:] if arguments is None else arguments
    sys.exit(run(recipe, given, prepare=prepare, at_scale=at_scale))


def run(
    recipe: Recipe,
    arguments: Sequence[str],
    *,
    prepare: Callable[[SweepConfig], None] | None = None,
    prog: str | None = None,
    at_scale: Scaling[SweepConfig] | None = None,
) -> int:
    """`main` as a function: the exit code. `prog` is what --help calls the program."""

    def work() -> None:
        sweep = parse(recipe, arguments, prog=prog, at_scale=at_scale)
        if prepare is not None:
            prepare(sweep)
        from bearray.tuning.sweep import run_sweep  # ray only once the arguments are known to be right

        run_sweep(sweep)

    return exit_code(work)


def exit_code(work: Callable[[], object]) -> int:
    """Do resumable work: 0 if it ends well, 2 after one message for what a user can mend, 130 if interrupted.

    Ray is stopped, or left, before it returns.
    """
    try:
        with interruptible():
            work()
    except BearrayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return EXIT_CODE
    except OSError as error:
        if error.errno not in OUT_OF_ORDER:
            raise
        where = f"cannot write {error.filename}: " if error.filename else ""
        print(f"error: {where}{cause_of(error)}", file=sys.stderr)
        return 2
    return 0


def parse(
    recipe: Callable[[], C],
    arguments: Sequence[str],
    *,
    prog: str | None = None,
    at_scale: Scaling[C] | None = None,
) -> C:
    """The sweep (benchmark, or paper) that a command line asks for.

    Raises:
        ConfigError: a setting that cannot work.
        SystemExit: 0 for --help, 2 for an argument that does not exist.
    """
    import tyro

    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--smoke", action="store_true")
    early.add_argument("--scale", choices=("paper", "cpu", "smoke"))
    chosen, _ = early.parse_known_args(arguments)
    default = recipe()
    if chosen.smoke or chosen.scale is not None:
        default = (at_scale or _at_scale)(default, "smoke" if chosen.smoke else chosen.scale)
    module = sys.modules.get(recipe.__module__)
    return tyro.cli(
        type(default),
        prog=prog,
        default=default,
        args=list(arguments),
        description=getattr(module, "__doc__", None),
    )


def _at_scale(default: Any, scale: Scale) -> Any:
    if isinstance(default, SweepConfig):
        return scaled(default, scale)
    return default.at_scale(scale, SMOKE if scale == "smoke" else CPU)
