"""Command lines from typed functions, by tyro, with help that reads well."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_type_hints

import tyro

WIDEST = 100
"""Columns of a description at most."""
_KEEP = "\u200b"
"""No width, no letter: tyro joins lines that begin with a letter, and then wraps nothing."""


def call(function: Callable[..., Any], prog: str, arguments: Sequence[str]) -> Any:
    """Parse arguments for a function, call it, and return what it returns.

    Raises:
        SystemExit: 0 after --help, 2 for arguments that it does not take.
    """
    return tyro.cli(
        _plainer(function),
        prog=prog,
        description=description(function),
        args=list(arguments),
    )


def description(function: Callable[..., Any]) -> str:
    """A function's docstring up to its arguments, wrapped to the terminal's width."""
    text = inspect.cleandoc(function.__doc__ or "").split("\nArgs:\n")[0].strip()
    width = min(WIDEST, shutil.get_terminal_size().columns)
    paragraphs = (textwrap.wrap(" ".join(part.split()), width) for part in text.split("\n\n"))
    return "\n\n".join(f"\n{_KEEP}".join(lines) for lines in paragraphs)


def _hint(default: str) -> str:
    """After an option's text; that a switch is off, or that there is no default, is said by the text."""
    return "" if default in ("None", "False") else f"(default: {default})"


def _plainer(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with annotations by which tyro's help is shorter."""

    def same(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    signature = inspect.signature(function)
    hints = get_type_hints(function, include_extras=True)
    shorter = tyro.conf.arg(help_behavior_hint=_hint)
    annotated: Any = Annotated  # made of values here, which a type checker takes for types
    no_none: Any = tyro.conf.DisallowNone
    no_pair: Any = tyro.conf.FlagCreatePairsOff
    for name, parameter in signature.parameters.items():
        if parameter.default is None:  # --k INT, not --k {None}|INT
            hints[name] = no_none[annotated[hints[name], shorter]]
        elif parameter.default is False:  # --json, not --json, --no-json
            hints[name] = no_pair[annotated[hints[name], shorter]]
    same.__annotations__, same.__doc__ = hints, function.__doc__
    # Not by functools.wraps, which would lead tyro to the annotations as they were.
    same.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[p.replace(annotation=hints[n]) for n, p in signature.parameters.items()]
    )
    return same
