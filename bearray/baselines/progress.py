"""A baseline's progress on stderr: a bar on a terminal, a line every tenth of the way in logs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def epoch_progress(title: str | None, epochs: int, done: int = 0) -> Iterator[Callable[[int, str], None]]:
    """Yields a function to call after each epoch (from 1) with a few words on it; without a title, nothing
    is shown."""
    if title is None:
        yield lambda epoch, words: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from bearray.terminal import terminal, text_column

    console = terminal(stderr=True)
    if not console.is_terminal:
        tenth = max(1, epochs // 10)

        def line(epoch: int, words: str) -> None:
            if epoch == 1 or epoch % tenth == 0 or epoch == epochs:
                console.print(f"{title}: epoch {epoch} of at most {epochs}, {words}", soft_wrap=True)

        yield line
        return
    columns = (text_column(), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, text_column("{task.fields[words]}"), console=console) as bar:
        task = bar.add_task(title, total=epochs, completed=done, words="")
        yield lambda epoch, words: bar.update(task, completed=epoch, words=words)
