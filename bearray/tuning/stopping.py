"""Trials that fall behind are stopped by ASHA: what their run folders say, and what Optuna is told.

Ray's ASHA keeps its records in memory and counts results since a trial's last start. Here time is the epoch,
and the records of trials that an earlier, interrupted call has run are read from their run folders.
"""

from __future__ import annotations

from typing import Any

from ray import tune
from ray.train import Checkpoint
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.result import TIMESTEPS_TOTAL, TRAINING_ITERATION
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from bearray.runs import Storage
from bearray.training.written import KEEP, METRICS, SCORE
from bearray.tuning.config import SearchConfig
from bearray.tuning.plans import trial_plan
from bearray.tuning.trial import RESULT, STOPPED, ended
from bearray.tuning.watch import say

REPORTED = "run_id"
"""In a trial's last result, and only where its training came to its end: the id of its run."""
EPOCH = "epoch"


class EpochReport(TuneReportCallback):
    """Tells Tune of each validated epoch; TensorBoard's steps are epochs, also after a restart."""

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        if metrics[0][SCORE] >= 0:  # others say nothing of how good a trial is
            told = {name: value for name, value in metrics[0].items() if name != KEEP}
            super().after_report(run_context, [told | {TIMESTEPS_TOTAL: told[EPOCH]}], checkpoint)


class EpochASHA(ASHAScheduler):
    """ASHA (arXiv 1810.05934) on validation NDCG@10, with epochs for time.

    A trial that reaches epoch `grace_epochs * reduction_factor^k` goes on if its score is in the best
    1 / `reduction_factor` of those that reached it before; the first one there always goes on. No trial is
    stopped at its last epoch.

    Args:
        search: its settings.
        epochs: of a trial that is not stopped.
        storage: of the sweep. plan: what every trial starts from, as `RunPlan.to_dict`.
    """

    def __init__(self, search: SearchConfig, *, epochs: int, storage: str, plan: dict[str, Any]) -> None:
        super().__init__(
            time_attr=EPOCH,
            max_t=epochs - 1,  # the highest rung
            grace_period=search.grace_epochs,
            reduction_factor=search.reduction_factor,
            stop_last_trials=False,
        )
        self._storage, self._plan = storage, plan

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, trial)
        for row in _epochs(_folder(trial.config, self._storage, self._plan)):
            super().on_trial_result(tune_controller, trial, row)


class PrunedTrials(OptunaSearch):
    """OptunaSearch that tells Optuna of a stopped trial as pruned.

    Ray's own tells its last score as if it were final, so that the sampler takes a good setting that learns
    slowly for a bad one. TPE ranks pruned trials behind all complete ones, by how far they came.
    """

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if REPORTED not in result:  # the last one repeats the best epoch
            super().on_trial_result(trial_id, result | {TRAINING_ITERATION: result[EPOCH]})

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if not error and result is not None and REPORTED not in result:
            self.on_trial_result(trial_id, result)  # of a result that stops a trial, Tune tells here alone
            result = None
        super().on_trial_complete(trial_id, result, error)


class StoppedRuns(tune.Callback):
    """Writes result.json of a run whose trial was stopped: its driver is ended without another word."""

    def __init__(self, search: SearchConfig, *, epochs: int, storage: str, plan: dict[str, Any]) -> None:
        self._search, self._epochs, self._storage, self._plan = search, epochs, storage, plan

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        last = trial.last_result or {}
        if REPORTED in last:
            return
        folder = _folder(trial.config, self._storage, self._plan)
        if ended(folder) is None:
            share = f"the best 1/{self._search.reduction_factor}"
            why = f"of {self._epochs}, by ASHA: it was not among {share} of the trials"
            say(f"{folder.root.rpartition('/')[2]}: {mark_stopped(folder, last.get(EPOCH, 0), why)}")


def mark_stopped(folder: Storage, epoch: int, why: str) -> str:
    """Write result.json of a run that was stopped early: its best epoch so far, and no checkpoint to use.

    Args:
        epoch: after which; its workers may have come further by the time they were told.

    Returns:
        The reason: after which epoch, and `why`.
    """
    rows = [row for row in folder.read_lines(METRICS) if row["kind"] == "epoch"]
    epochs = [row for row in rows if SCORE in row and row[EPOCH] <= epoch]
    best = max(epochs, key=lambda row: (row[SCORE], row[EPOCH]), default={})
    reason = f"stopped after epoch {epoch} {why}"
    folder.write_json(
        RESULT,
        {
            "status": STOPPED,
            "error": None,
            "stopped": reason,
            "best_epoch": best.get(EPOCH),
            "valid": {n.removeprefix("valid_"): v for n, v in best.items() if "@" in n},
            "checkpoint": None,
            "seconds": {
                "train": sum(row["seconds"] for row in rows),
                "valid": sum(row.get("valid_seconds", 0.0) for row in rows),
            },
            "chosen": False,
        },
    )
    return reason


def _folder(space: dict[str, Any], storage: str, plan: dict[str, Any]) -> Storage:
    return Storage(storage).child("runs", trial_plan(space, plan).run_id)


def _epochs(folder: Storage) -> list[dict[str, Any]]:
    """The validated epochs of a run."""
    return [row for row in folder.read_lines(METRICS) if row["kind"] == "epoch" and SCORE in row]
