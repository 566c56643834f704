"""Progress of a training on stderr: a bar on a terminal, a line every tenth of the way in a log file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def training_progress(
    title: str, steps: int, *, enabled: bool = True
) -> Iterator[Callable[[int, float], None]]:
    """Yields a function to call after each step with its number (from 1) and its loss."""
    if not enabled:
        yield lambda step, loss: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from bearray.terminal import terminal, text_column

    console = terminal(stderr=True)
    if not console.is_terminal:
        tenth = max(1, steps // 10)

        def line(step: int, loss: float) -> None:
            if step == 1 or step % tenth == 0 or step == steps:
                console.print(f"{title}: step {step} of {steps}, loss {loss:.3f}", soft_wrap=True)

        yield line
        return
    columns = (text_column(), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, text_column("loss {task.fields[loss]}"), console=console) as bar:
        task = bar.add_task(title, total=steps, loss="-")
        yield lambda step, loss: bar.update(task, completed=step, loss=f"{loss:.3f}")


@contextmanager
def no_library_bars() -> Iterator[None]:
    """Without the bars that transformers draws for files that are written or read in milliseconds."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
