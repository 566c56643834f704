"""What has befallen a run in training: a line of its events.jsonl for each event, if there was any."""

from __future__ import annotations

from typing import Any

from bearray.errors import DataError
from bearray.provenance import now
from bearray.runs import Storage

EVENTS = "events.jsonl"
"""A line of {"time", "event"} for each event; of workers' failures also "why", "ranks", "ended_the_run"."""


def tell(folder: Storage, event: str, **more: Any) -> None:
    """Add an event to a run folder.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        rows = folder.read_lines(EVENTS)
    except DataError:  # damaged by the very fault that is told of
        rows = []
    folder.write_lines(EVENTS, [*rows, {"time": now(), "event": event, **more}])


def events(folder: Storage) -> list[dict[str, Any]]:
    """All events of a run folder, oldest first; of a damaged file, none."""
    try:
        return [row for row in folder.read_lines(EVENTS) if isinstance(row.get("event"), str)]
    except DataError:
        return []
