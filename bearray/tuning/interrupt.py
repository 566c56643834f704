"""Ctrl-C: stop where we are, clean up, say how to continue."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 130
"""128 + SIGINT, as shells have it."""
SAME_PRESS_SECONDS = 5.0
"""An impatient second Ctrl-C within so many seconds must not break off what the first one has begun."""


class Interrupts:
    """What this process does about SIGINT.

    The first one raises KeyboardInterrupt where the program is. Further ones are ignored for a moment, and
    while cleaning up; one that comes later means that the first was lost in a library, and raises again. The
    third while cleaning up ends the process at once: a Ray that it has started dies with it.
    """

    def __init__(self) -> None:
        self.first: float | None = None
        self.cleaning = False
        self.while_cleaning = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.cleaning:
            self.while_cleaning += 1
            if self.while_cleaning >= 3:
                os._exit(EXIT_CODE)
            return
        moment = time.monotonic()
        if self.first is None or moment - self.first > SAME_PRESS_SECONDS:
            self.first = moment
            raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[None]:
    """Handle Ctrl-C as `Interrupts` for the length of the block, and at its end leave a Ray that it connected
    to, which ends its work there, or stop the one that it started.

    In a thread other than the main one, where Python handles no signals, only the latter.
    """
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Tune's would let a sweep go on with its next stage
    interrupts, ran_before = Interrupts(), _ray_runs()
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, interrupts) if main else None
    try:
        yield
    finally:
        interrupts.cleaning = True
        try:
            if not ran_before and _ray_runs():
                _stop_ray()
        finally:
            if main:
                signal.signal(signal.SIGINT, before)


def _ray_runs() -> bool:
    ray = sys.modules.get("ray")  # not imported here: a wrong argument should be told at once
    return ray is not None and bool(ray.is_initialized())


def _stop_ray() -> None:
    sys.modules["ray"].shutdown()
