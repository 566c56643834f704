"""Before a run is continued: which of its checkpoints can be trusted, and Ray Train's own record of them made
to say just that.

Ray copies a checkpoint to storage file by file and then overwrites its record, so a killed process or a
full disk can leave a checkpoint that lacks a part, or an empty record. What is on disk decides: a checkpoint
counts when its files have the sizes and checksums that its state.json names, and metrics.jsonl has its epoch.
The run continues from the newest one for which the best one up to it is there as well; without that, it could
end without its best epoch. What Ray keeps is enough for that when the newest one is damaged (`written.KEEP`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray

from bearray.errors import DataError, MissingFileError
from bearray.runs import CHECKPOINTS, Storage, fetch_folder
from bearray.training.events import tell
from bearray.training.state_file import read_state
from bearray.training.written import KEEP, KEPT, METRICS, SCORE, epoch_reports

RECORD = "checkpoint_manager_snapshot.json"
"""Ray Train's record of a run's checkpoints."""
_PREFIX = "checkpoint_"

Metrics = Mapping[str, Any]


def recover(folder: Storage) -> bool:
    """Make a run's folder fit to be continued; of a run that was not disturbed, nothing is changed.

    Checkpoints that are not continued from are deleted, and the reason is told in events.jsonl.

    Returns:
        Whether anything was damaged.

    Raises:
        StorageError: it cannot be read or written.
    """
    place = folder.child(CHECKPOINTS)
    if not place.exists():
        return False
    found = _look(folder)
    latest = found.latest
    keep = found.keep(latest)
    record = _record([(name, found.metrics[epoch]) for epoch, name in keep])
    if _same(place, record) and set(found.names) == {name for _, name in keep}:
        return False
    reasons = list(found.damaged)
    if place.exists(RECORD) and not _readable(place):
        reasons.append(f"Ray Train's record {CHECKPOINTS}/{RECORD} cannot be read")
    if found.whole and latest is None and not found.damaged:
        reasons.append("the checkpoint of the best epoch is gone")
    if reasons:
        tell(folder, f"{'; '.join(reasons)}; {_continues(keep[-1] if keep else None)}")
    if not keep:
        folder.delete(CHECKPOINTS)
        folder.delete(METRICS)
        return bool(reasons)
    place.write_json(RECORD, record)
    for name in set(found.names) - {name for _, name in keep}:
        place.delete(name)
    return bool(reasons)


@dataclass
class _Found:
    """What is on disk."""

    metrics: Mapping[int, Metrics]
    """What each epoch reported, of metrics.jsonl."""
    names: list[str] = field(default_factory=list)
    """All checkpoints, whole or not, oldest first."""
    whole: dict[int, str] = field(default_factory=dict)
    """Those that can be trusted, by epoch."""
    damaged: list[str] = field(default_factory=list)
    """What is wrong with the others, in words."""

    @property
    def latest(self) -> int | None:
        """The epoch to continue after."""
        usable = (epoch for epoch in self.whole if self._best(epoch) is not None)
        return max(usable, default=None)

    def _best(self, until: int) -> int | None:
        """The best epoch up to one: of equal ones the newest that is there, as Ray keeps it."""
        scores = {epoch: row[SCORE] for epoch, row in self.metrics.items() if epoch <= until}
        equal = [epoch for epoch, score in scores.items() if score == max(scores.values())]
        return max((epoch for epoch in equal if epoch in self.whole), default=None)

    def keep(self, latest: int | None) -> list[tuple[int, str]]:
        """Epoch and name of the checkpoints to keep, oldest first: those that Ray would keep of these."""
        if latest is None:
            return []
        best = self._best(latest)
        assert best is not None
        until = sorted((e for e in self.whole if e <= latest), key=lambda e: float(self.metrics[e][KEEP]))
        return [(epoch, self.whole[epoch]) for epoch in sorted({*until[-KEPT:], best, latest})]


def _look(folder: Storage) -> _Found:
    try:
        rows = folder.read_lines(METRICS)
        metrics = epoch_reports(rows)
    except (DataError, KeyError, TypeError, ValueError) as error:
        return _Found({}, damaged=[f"{METRICS} cannot be read ({error})"])
    place = folder.child(CHECKPOINTS)
    found = _Found(metrics, [n for n in place.names() if n.startswith(_PREFIX) and n != RECORD])
    for name in found.names:
        try:
            with fetch_folder(place.child(name).root) as local:
                epoch = int(read_state(local)["epoch"])
        except MissingFileError:
            continue
        except (OSError, ValueError) as error:
            found.damaged.append(f"checkpoint {CHECKPOINTS}/{name} is damaged ({error})")
            continue
        if epoch in metrics:
            found.whole[epoch] = name
    return found


def _record(kept: list[tuple[str, Metrics]]) -> dict[str, Any]:
    """Ray Train's record of checkpoints, given oldest first; its list is in order of their scores."""
    results: list[dict[str, Any]] = [
        {"version": 0, "checkpoint_dir_name": name, "metrics": dict(row)} for name, row in kept
    ]
    ordered = sorted(results, key=lambda r: float(r["metrics"][KEEP]))
    return {
        "ray_version": ray.__version__,
        "checkpoint_results": ordered,
        "checkpoint_report_indices": [r["metrics"]["epoch"] - 1 for r in ordered],
        "latest_checkpoint_result": results[-1] if results else None,
        "pending_training_results": [],
        "pending_validation_specs": [],
        "current_report_index": results[-1]["metrics"]["epoch"] if results else 0,
        "validated_checkpoint_dir_names": [],
        "timed_out_validation_checkpoint_dir_names": [],
        "failed_validation_checkpoint_dir_names": [],
    }


def _readable(place: Storage) -> bool:
    try:
        place.read_json(RECORD)
    except (DataError, MissingFileError):
        return False
    return True


def _same(place: Storage, record: dict[str, Any]) -> bool:
    """Ray's record names the same checkpoints, in the same order."""
    try:
        return _names(place.read_json(RECORD)) == _names(record)
    except (DataError, MissingFileError, KeyError, TypeError, AttributeError):
        return False


def _names(record: dict[str, Any]) -> tuple[list[tuple[str, float | None]], str | None]:
    latest = record["latest_checkpoint_result"] or {}
    kept = [(r["checkpoint_dir_name"], r["metrics"].get(KEEP)) for r in record["checkpoint_results"]]
    return kept, latest.get("checkpoint_dir_name")


def _continues(latest: tuple[int, str] | None) -> str:
    if latest is None:
        return "there is no other to continue from, so the run begins again"
    return f"the run continues after epoch {latest[0]}, from {CHECKPOINTS}/{latest[1]}"
