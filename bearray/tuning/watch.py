"""Progress of a sweep on the terminal, read from the run folders: the same wherever the workers are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.text import Text

from bearray.runs import Storage
from bearray.terminal import terminal
from bearray.training.events import EVENTS, events
from bearray.training.written import METRICS
from bearray.tuning.waiting import Waiting

CONFIG = "config.json"
POLL_SECONDS = 4.0
REMOTE_POLL_SECONDS = 15.0
"""On a storage that is not this machine's, where each look is a request."""
STEP_SECONDS = 30.0
"""A run that is between two epochs says where it is this often."""

console = terminal(soft_wrap=True)


def say(*parts: str | tuple[str, str]) -> None:
    """A line of progress with the time of day.

    Args:
        parts: text, shown as it is, or (text, style) such as ("failed:", "red").
    """
    console.print(Text.assemble((time.strftime("%H:%M:%S"), "dim"), " ", *parts))


class _Watcher:
    def __init__(self, runs: Storage) -> None:
        self.runs = runs
        self.epochs: dict[str, int] = {}
        self.told: dict[str, int] = {name: len(events(runs.child(name))) for name in runs.names()}
        self.seen: dict[str, tuple[int, float]] = {
            name: (len(runs.child(name).read_lines(METRICS)), 0.0) for name in runs.names()
        }
        self.stamps: dict[tuple[str, str], tuple[int, int]] = {}

    def poll(self) -> None:
        for name in self.runs.names():
            stamps = self.runs.child(name).stamps()
            if self._changed(name, EVENTS, stamps):
                told = events(self.runs.child(name))
                for row in told[self.told.get(name, 0) :]:
                    say((f"{name}:", "yellow"), f" {row['event']}")
                self.told[name] = len(told)
            if self._changed(name, METRICS, stamps) and not self._progress(name):
                del self.stamps[name, METRICS]  # there is more to tell, later

    def _changed(self, name: str, file: str, stamps: dict[str, tuple[int, int]]) -> bool:
        """Whether a run's file has changed since this was last asked."""
        before, now = self.stamps.get((name, file)), stamps.get(file)
        if now is not None:
            self.stamps[name, file] = now
        return now != before

    def _progress(self, name: str) -> bool:
        """Tell of a run's new epochs, else of its newest step where one is due; False: it was not yet due."""
        rows = self.runs.child(name).read_lines(METRICS)
        count, spoke = self.seen.get(name, (0, 0.0))
        new = rows[count:]
        epochs = [r for r in new if r["kind"] == "epoch"]
        if new and not epochs and time.monotonic() - spoke <= STEP_SECONDS:
            return False
        for row in epochs:
            say(self._epoch(name, row))
        if new and not epochs:
            say(self._step(name, new[-1]))
        if new:
            self.seen[name] = (len(rows), time.monotonic())
        return True

    def _epochs(self, name: str) -> int:
        """Epochs that a run will have, from its settings."""
        if name not in self.epochs:
            self.epochs[name] = int(self.runs.child(name).read_json(CONFIG)["run"]["train"]["epochs"])
        return self.epochs[name]

    def _epoch(self, name: str, row: dict[str, Any]) -> str:
        score = f", validation NDCG@10 {row['valid_ndcg@10']:.4f}" if "valid_ndcg@10" in row else ""
        return f"{name}: epoch {row['epoch']}/{self._epochs(name)} in {row['seconds']:.0f} s{score}"

    def _step(self, name: str, row: dict[str, Any]) -> str:
        return (
            f"{name}: epoch {row['epoch']:.2f}/{self._epochs(name)}, loss {row['loss']:.4f}, "
            f"{row['tokens_per_s']:.0f} tokens/s"
        )


@contextmanager
def watching(runs: Storage) -> Iterator[None]:
    """While it lasts, say what the runs in a folder are doing, and what they wait for."""
    watcher, waiting = _Watcher(runs), Waiting(say)

    def look() -> None:
        watcher.poll()
        waiting.poll()

    with polling(look, REMOTE_POLL_SECONDS if runs.remote else POLL_SECONDS):
        yield


@contextmanager
def polling(look: Callable[[], None], seconds: float) -> Iterator[None]:
    """While it lasts, `look` every so many seconds, in a thread of its own, and once more at the end.

    What goes wrong in it is said once, and is no reason to end what is being watched.
    """
    stop = threading.Event()
    told = ""

    def look_safely() -> None:
        nonlocal told
        try:
            look()
        except Exception as error:  # whatever it is, progress must not end a night's work
            now = f"progress cannot be read: {type(error).__name__}: {error}"
            if now != told:
                say(now)
            told = now

    def loop() -> None:
        while not stop.wait(seconds):
            look_safely()

    thread = threading.Thread(target=loop, daemon=True, name="bearray-progress")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        look_safely()
