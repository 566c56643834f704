"""A training process that hangs is ended, so that Ray Train starts all workers again from the last
checkpoint.

No exception can reach a thread that waits for another worker, a driver or a dead file system in native
code, so nothing less than the end of the process helps. Where one worker hangs, the others wait for it in
their next collective, make no progress either, and say so, too.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

START_SECONDS = 1800.0
"""What a worker has for its first step at least: kernels are compiled and connections made in it."""
NOTE_SECONDS = 10.0
"""What writing the note may take; the storage may be what hangs."""
EXIT_CODE = 86
"""Of a process that was ended because it hung."""

_POLLS = 20
"""Looks at the clock per time-out."""

logger = logging.getLogger(__name__)

PATIENCE = 1.25
"""A process that waits for others has so many times the time-out: who keeps it waiting is to speak first."""
_WAITING = tuple(
    os.path.join("torch", *part.split("/")) for part in ("distributed", "nn/parallel", "autograd")
)
"""Where a thread waits for other workers: in a collective, also DDP's own, or in a backward pass with one."""

Note = dict[str, Any]
"""What a process says of its own end: seconds without progress, the last finished step of this attempt or
None, where it was, whether it waited for others there, and the stack of its training thread, outermost call
first."""


class Watchdog:
    """Ends the process when `progress` has not been called for too long.

    Args:
        seconds: without progress; 0 watches nothing. Until the first step of this process has ended,
            `START_SECONDS` where that is more.
        say: told why, just before the end; it may fail or hang.
    """

    def __init__(self, seconds: float, say: Callable[[Note], None]) -> None:
        self.seconds, self._say = seconds, say
        self._last = time.monotonic()
        self._step: int | None = None

    def progress(self, *_: Any) -> None:
        """Something has moved: a pass through the model has begun. Takes what hooks are given."""
        self._last = time.monotonic()

    def step_done(self, step: int) -> None:
        """An optimiser step has ended."""
        self._step = step
        self.progress()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the thread that calls this, as long as it lasts."""
        if not self.seconds:
            yield
            return
        over, watched = threading.Event(), threading.get_ident()
        self.progress()
        thread = threading.Thread(
            target=self._watch, args=(over, watched), daemon=True, name="bearray-watchdog"
        )
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _limit(self) -> float:
        return self.seconds if self._step is not None else max(self.seconds, START_SECONDS)

    def _watch(self, over: threading.Event, watched: int) -> None:
        looks, seen, interval = 0, self._last, self.seconds / _POLLS
        while not over.wait(interval):
            # Looks count, and not the clock alone: where the whole process or machine stood still, it is no
            # fault of the training thread's.
            looks, seen = (looks + 1 if seen == self._last else 0), self._last
            idle = time.monotonic() - seen
            if looks * interval >= self._limit() and idle > self._limit():
                place = _where(sys._current_frames().get(watched))
                if not place["waiting"] or looks * interval >= PATIENCE * self._limit():
                    self._end({"seconds": round(idle, 1), "step": self._step, **place})

    def _end(self, note: Note) -> None:
        logger.error("no progress for %s s; this process ends itself. %s", note["seconds"], note)
        writer = threading.Thread(target=self._say, args=(note,), daemon=True)
        writer.start()
        writer.join(NOTE_SECONDS)
        os._exit(EXIT_CODE)


def _where(frame: FrameType | None) -> Note:
    """The innermost call of a thread and its whole stack, as text."""
    if frame is None:
        return {"where": "nowhere", "waiting": False, "stack": []}
    calls = traceback.extract_stack(frame)
    last = calls[-1]
    return {
        "where": f"{last.name} ({os.path.basename(last.filename)}:{last.lineno})",
        "waiting": any(place in last.filename for place in _WAITING),
        "stack": [f"{c.filename}:{c.lineno} {c.name}" for c in calls],
    }
