"""Waiting, without a time that a busy machine could miss."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 300.0) -> Any:
    """Wait until a condition is true and return what it came to; the limit is for what never comes."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"no {what} in {seconds:g} seconds"
        time.sleep(0.1)
    return value
