"""How long Ray Train and torch.distributed wait for workers that do not answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from bearray.config import TrainConfig

POLL_SECONDS = 0.5
"""Ray Train's controller asks its workers for reports and errors this often; after each epoch it is waited
for, and Ray's own 2 s would be felt."""
ANSWER_SECONDS = 600.0
"""A worker whose process does not answer at all is given up after this, or after `train.hang_timeout_s` where
that is less; Ray's own value."""
COLLECTIVE_SECONDS = 1800
"""torch.distributed's own value."""


def collective_timeout(train: TrainConfig) -> int:
    """Seconds after which a collective fails: after the watchdog, which knows better what went wrong."""
    return max(COLLECTIVE_SECONDS, int(2 * train.hang_timeout_s))


@contextmanager
def health_checks(train: TrainConfig) -> Iterator[None]:
    """While it lasts, a Ray Train run that this process starts finds lost and stopped workers in time.

    Ray Train takes these values from the environment only; what the user has set there is left alone.
    """
    answer = min(ANSWER_SECONDS, train.hang_timeout_s or ANSWER_SECONDS)
    wanted = {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": POLL_SECONDS,
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": answer,
    }
    added = {name: str(value) for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
