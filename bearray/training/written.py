"""What a run's workers write down, by the names that its drivers and readers share with them.

Nothing here needs a model's libraries, so that processes which only drive or watch runs start without them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

METRICS = "metrics.jsonl"
DIVERGED = "diverged"
"""Folder of a run whose loss has become NaN: a checkpoint of the state before it, and diverged.json."""
SCORE = "valid_ndcg@10"
KEEP = "keep"
"""Ray Train keeps the checkpoints of which this is highest, and the newest one."""
KEPT = 3
"""How many: enough for the best one, the newest one and the one before it, and at each epoch for the best one
of those before it, without which a run whose newest checkpoint is damaged could not go on."""


def epoch_reports(rows: Iterable[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """What Ray Train is told of each epoch and keeps with its checkpoint, by epoch.

    An epoch without validation scores -1: it can be continued from, and never be the best one.

    Ray orders checkpoints once, by what an epoch reports. `KEEP` makes that order: with b the best epoch so
    far, of equal ones the newest, it is b for b itself, and b - 1/epoch for later ones. So the highest is the
    best epoch; below it come those after it, the newest first; and then, in the same way, the best epoch
    before it and what came between the two.

    Args:
        rows: of metrics.jsonl; those of steps are passed over.
    """
    reports: dict[int, dict[str, Any]] = {}
    best, highest = 0, -math.inf
    for row in rows:
        if row["kind"] != "epoch":
            continue
        report = {SCORE: -1.0} | {name: value for name, value in row.items() if name != "kind"}
        epoch = int(report["epoch"])
        if report[SCORE] >= highest:
            best, highest = epoch, report[SCORE]
        reports[epoch] = report | {KEEP: float(best) if epoch == best else best - 1 / epoch}
    return reports
