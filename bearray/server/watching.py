"""Looking after a service while it runs: says when its state changes, and ends when it is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NoReturn

from bearray.errors import ResourceError

POLL_SECONDS = 5.0
PATIENCE_SECONDS = 900.0
"""A service that is not well for longer than this is given up; a large model may take minutes to be opened
again after its replica has died."""


def watch(trouble: Callable[[], str | None], say: Callable[[str], None]) -> NoReturn:
    """Until interrupted.

    Args:
        trouble: says what is wrong with the service, or None; raises ResourceError once it is gone.
        say: told when that changes.

    Raises:
        ResourceError: the service is gone, or was not well for too long.
    """
    last, polls = None, 0
    while True:
        time.sleep(POLL_SECONDS)
        now = trouble()
        if now != last:
            say(f"the service is not well: {now}" if now else "the service is well again")
            last = now
        polls = polls + 1 if now else 0
        if polls * POLL_SECONDS > PATIENCE_SECONDS:
            raise ResourceError(
                f"the service has not been well for {PATIENCE_SECONDS / 60:g} minutes and is stopped: {now}"
            )
