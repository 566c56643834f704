"""A progress bar over bytes, on the terminal's error stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int], None]


@contextmanager
def byte_progress(label: str, total: int | None, start: int = 0) -> Iterator[Advance]:
    """A bar that is told how many bytes have been read so far; silent where there is no terminal."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from bearray.terminal import terminal, text_column

    console = terminal(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bar = Progress(text_column(), *columns, console=console, disable=not console.is_terminal)
    with bar:
        task = bar.add_task(label, total=total, completed=start)
        yield lambda done: bar.update(task, completed=done)
