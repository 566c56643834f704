"""Printing for people through rich: the one place where its consoles are made.

Rich reads `[red]`, `[/red]` and `:name:` in a string as markup. Names of runs, paths and messages of errors
hold such text by chance, and would lose it or end the program; so no console here reads markup. What is to
have a colour is a `rich.text.Text`.
"""

from __future__ import annotations

from rich.console import Console
from rich.progress import TextColumn


def terminal(*, stderr: bool = False, soft_wrap: bool = False, width: int | None = None) -> Console:
    """A console that shows every string as it is, in tables too.

    Args:
        stderr: write there, not on stdout.
        soft_wrap: leave the breaking of long lines to the terminal, so that a path can be copied whole.
        width: in characters; None: that of the terminal.
    """
    return Console(
        stderr=stderr, soft_wrap=soft_wrap, width=width, markup=False, emoji=False, highlight=False
    )


def text_column(template: str = "{task.description}") -> TextColumn:
    """A column of a progress bar that shows every string as it is, such as the name of what is under way."""
    return TextColumn(template, markup=False)
