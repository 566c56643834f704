"""How far a search for recommendations is, on standard error: what is found goes to standard output."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn
from torch import nn

from bearray.decoding.network import open_network
from bearray.terminal import terminal, text_column

EVERY_SECONDS = 30.0
"""Between lines in a log."""


class SearchProgress:
    """A bar on a terminal, a line now and then in a log.

    One history can take long, too, by exact search: so the passes of the model are counted beside the
    histories, which shows that something goes on.

    Args:
        model: the one that searches.
        total: histories in all.
    """

    def __init__(self, model: nn.Module, total: int) -> None:
        self._body = open_network(model, eos_token_id=0).body  # decoders call it, not the whole model
        self._total = total
        self._done = self._before = self._passes = 0
        self._console = terminal(stderr=True, soft_wrap=True)
        self._told = time.monotonic()
        columns = (SpinnerColumn(), text_column(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(
            *columns,
            text_column("{task.fields[passes]:,} passes of the model"),
            console=self._console,
            transient=True,
            redirect_stdout=False,  # it would send what is found to standard error
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("histories", total=total, passes=0)

    @contextmanager
    def searching(self) -> Iterator[None]:
        """While it lasts the bar is there. Print after it, else the two meet on the terminal."""
        hook = self._body.register_forward_hook(self._passed)
        self._before = self._done
        try:
            with self._bar:
                yield
        finally:
            hook.remove()

    def __call__(self, done: int, total: int) -> None:
        """Told by a decoder: histories done of those that are searched now."""
        self._done = self._before + done
        self._show()

    def _passed(self, *_: Any) -> None:
        self._passes += 1
        self._show()

    def _show(self) -> None:
        self._bar.update(self._task, completed=self._done, passes=self._passes)
        now = time.monotonic()
        if self._bar.disable and now - self._told >= EVERY_SECONDS:
            self._told = now
            self._console.print(
                f"{self._done:,} of {self._total:,} histories, {self._passes:,} passes of the model"
            )
