"""One damaged input through one reader, and what came of it.

Good outcomes are "read" (the damage did not matter, or made other good data) and "refused" (a `BearrayError`:
exit code 2 and one message). Everything else is a defect: another exception, a broken promise, a hang.
"""

from __future__ import annotations

import random
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from bearray.errors import BearrayError
from tests.fuzz.reader import Reader
from tests.fuzz.readers import fresh

PATIENCE_S = 20
"""Seconds of computing; a reader that takes longer for a few kilobytes hangs. Good ones take milliseconds, a
report a second."""
WAIT_S = 300
"""Seconds by the clock, for one that waits without computing; long, because the machine may be busy."""
MESSAGE = 20_000
"""Characters that a message may have: it is meant to be read."""


@dataclass(frozen=True)
class Outcome:
    """What a reader did with an input."""

    kind: str
    """read, refused or defect"""
    what: str
    """The refusal's type, or the defect's type and place."""
    detail: str = ""
    """The message, or a defect's traceback."""
    damage: str = ""


class Hang(BaseException):
    """Not an Exception, so that no reader takes it for damage."""


@contextmanager
def _bounded() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang("computes without an end" if number == signal.SIGPROF else "waits without an end")

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, PATIENCE_S), (signal.SIGALRM, signal.ITIMER_REAL, WAIT_S))
    before = [signal.signal(number, stop) for number, _, _ in timers]
    for _, timer, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def attempt(reader: Reader, sample: Path, scratch: Path, rng: random.Random) -> Outcome:
    """Damage a copy of the sample and read it."""
    folder = fresh(sample, scratch)
    damage = reader.damage(folder, rng)
    try:
        with _bounded():
            reader.read(folder, rng)
    except BearrayError as error:
        message = str(error)
        if not message.strip() or len(message) > MESSAGE:
            return Outcome(
                "defect",
                f"{type(error).__name__} with a message of {len(message)} characters",
                message,
                damage,
            )
        return Outcome("refused", type(error).__name__, message, damage)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of a native library is no Exception
        return Outcome("defect", _place(error), "".join(traceback.format_exception(error)), damage)
    return Outcome("read", "", "", damage)


def _place(error: BaseException) -> str:
    """Type and the innermost line of the project, so that equal defects count as one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/bearray/" in f.filename] or frames
    last = own[-1]
    return f"{type(error).__name__} at {'/'.join(Path(last.filename).parts[-2:])}:{last.lineno}"
