"""A progress bar over files and bytes, on the terminal's error stream."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bearray.jobs.copying import Tell


@contextmanager
def files_progress(files: int, size: int) -> Iterator[Tell]:
    """A bar that is told files and bytes as they come; silent where there is no terminal.

    Args:
        files: in all. size: their bytes.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from bearray.terminal import terminal, text_column

    console = terminal(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    done, lock = 0, threading.Lock()
    bar = Progress(text_column(), *columns, console=console, disable=not console.is_terminal)

    def words() -> str:
        return f"{done} of {files} files"

    with bar:
        task = bar.add_task(words(), total=size)

        def tell(more: int, read: int) -> None:
            nonlocal done
            with lock:
                done += more
            bar.update(task, advance=read, description=words())

        yield tell
