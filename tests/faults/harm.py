"""Doing harm to a run while it is trained, at the moment at which its worker waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.faults.planted import Fault, stuck
from tests.faults.waiting import wait_for


@contextmanager
def when_stuck(fault: Fault, harm: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """While the block trains, wait until a worker has reached its fault, and do `harm` with the line that it
    has written to the journal. Fails where it was not done."""
    done: list[Any] = []

    def wait_and_do() -> None:
        line = wait_for(lambda: stuck(fault), "worker at its fault")
        harm(line)
        done.append(line)

    thread = threading.Thread(target=wait_and_do, daemon=True)
    thread.start()
    yield
    thread.join(60)
    assert done, "the harm was not done"
