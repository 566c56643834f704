"""What a run's workers write down, by the names that its drivers and readers share with them.

Nothing here needs a model's libraries, so that processes which only drive or watch runs start without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

METRICS = "metrics.jsonl"
DIVERGED = "diverged"
"""Folder of a run whose loss has become NaN: a checkpoint of the state before it, and diverged.json."""
SCORE = "valid_ndcg@10"


def epoch_report(row: Mapping[str, Any]) -> dict[str, Any]:
    """What Ray Train is told of an epoch and keeps with its checkpoint, from its row of metrics.jsonl.

    An epoch without validation scores -1: it can be continued from, and never be the best one.
    """
    return {SCORE: -1.0} | {name: value for name, value in row.items() if name != "kind"}
