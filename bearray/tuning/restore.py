"""Whether Ray Tune's record of an experiment can be continued from; it is written while a sweep runs, so a
killed process or a full disk may leave half of it.

Nothing is lost with it: run folders say which runs are finished. It only keeps a search's next suggestions
the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import tune

from bearray.errors import DataError, StorageError
from bearray.runs import Storage, storage_trouble
from bearray.tuning.trust import check_own
from bearray.tuning.watch import say


class StopWithoutStorage(tune.Callback):
    """Ends an experiment when a trial has failed because of a full or read-only storage: all others would."""

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.on_trial_error(iteration, trials, trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        told = Path(trial.error_file).read_text().splitlines() if trial.error_file else []
        troubles = [line for line in told if storage_trouble(line) is not None]
        if troubles:
            raise StorageError(troubles[-1].strip())


def snapshot_seconds(storage: Storage) -> int:
    """How often Tune writes its record, at most.

    Its own 10 seconds could forget a trial that a search has just begun, which then begins again. On a
    storage that is not this machine's they stay, since each record is a dozen uploads: at one a second a
    night on S3 would be a million requests.
    """
    return 10 if storage.remote else 1


_STATE = "experiment_state-"


def can_continue(tune_folder: Storage, name: str, journal: Path | None = None) -> bool:
    """Whether an experiment can be restored; what cannot is cleared away, to begin anew.

    Args:
        tune_folder: where experiments are. name: of this one.
        journal: of a search: it begins anew with its experiment, so that it suggests the same as before.

    Raises:
        StorageError: the record is there, and others may have written to it.
    """
    path = tune_folder.child(name).root
    if tune.Tuner.can_restore(path):
        check_own(path)
        damaged = _damage(tune_folder, name)
        gone = journal is not None and not (journal.exists() and journal.stat().st_size)
        if damaged is None and not gone:
            return True
        # A storage in a bucket outlives the machine whose disk the journal was on.
        why = f"{path}/{damaged} is damaged" if damaged else f"{path} has lost its journal {journal}"
        say(f"Ray Tune's record {why}; it begins anew, and finished runs are kept")
    tune_folder.delete(name)
    if journal is not None:
        journal.unlink(missing_ok=True)
    return False


def _damage(tune_folder: Storage, name: str) -> str | None:
    """The file that cannot be read, if one cannot."""
    experiment = tune_folder.child(name)
    states = [file for file in experiment.names() if file.startswith(_STATE)]
    if not states:
        return f"{_STATE}*.json"
    newest = max(states)
    try:
        experiment.read_json(newest)
    except DataError:
        return newest
    for file in experiment.names():  # a pickle ends with "."; looking at that opens nothing
        if file.endswith(".pkl") and not experiment.read_bytes(file).endswith(b"."):
            return file
    return None
