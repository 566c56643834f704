"""Runs and trials on the cluster, through Ray Tune: each is a light driver that starts its own Ray Train
workers."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import ResultGrid
from ray.tune.result import TIMESTEPS_TOTAL

from bearray.config import override
from bearray.runs import Storage
from bearray.training.resources import uses_gpu
from bearray.training.written import SCORE
from bearray.tuning.cluster import DRIVER_CPUS, START_TIMEOUT, concurrent_trials
from bearray.tuning.config import SearchConfig
from bearray.tuning.plans import trial_plan
from bearray.tuning.restore import StopWithoutStorage, can_continue, snapshot_seconds
from bearray.tuning.space import Axis
from bearray.tuning.stopping import EPOCH, REPORTED, EpochASHA, EpochReport, PrunedTrials, StoppedRuns
from bearray.tuning.trial import STOPPED, RunPlan, check_not_failed, ended, execute

LOST_TRIALS = 3
"""How often a trial whose process was lost, or the node it was on, is started again."""


def _drive(
    space: dict[str, Any],
    *,
    storage: str,
    gpu: bool,
    start_timeout: str,
    attempt: str,
    plan: dict[str, Any] | None = None,
) -> None:
    """Body of a trial: train the run and tell Tune its best validation score last, which is what Optuna
    takes.

    Args:
        gpu: what train.device auto means on this cluster.
        start_timeout: seconds for which Ray Train waits for workers at a time; it asks again for ever.
        attempt: of this call of the sweep; Tune starts a trial again when its process was lost, and what the
            run itself has failed of in this attempt is not tried again.

    Raises:
        RunFailedError: it has failed in this attempt.
        Exception: as `execute`.
    """
    os.environ.setdefault(START_TIMEOUT, start_timeout)  # Ray Train takes it from the process that starts it
    run = trial_plan(space, plan)
    if run.config.train.device == "auto":
        run = replace(run, config=override(run.config, {"train.device": "gpu" if gpu else "cpu"}))
    folder = Storage(storage).child("runs", run.run_id)
    folder.check_writable()  # a trial that is started again finds this out before its workers are
    check_not_failed(folder, attempt)
    result = ended(folder) or execute(run, folder, [EpochReport()], attempt=attempt)
    last = {
        SCORE: result["valid"]["ndcg@10"],
        EPOCH: run.config.train.epochs,
        TIMESTEPS_TOTAL: result["best_epoch"],
    }
    tune.report(last if result["status"] == STOPPED else last | {REPORTED: run.run_id})


def run_methods(
    plans: Sequence[RunPlan],
    storage: Storage,
    *,
    name: str = "methods",
    max_concurrent: int | None,
    callbacks: Sequence[Any] = (),
) -> ResultGrid:
    """Train runs that are given in full, as many at a time as the cluster holds.

    Args:
        name: of the Ray Tune experiment; a rerun with the same name and plans continues it.
        callbacks: for Ray Tune, such as W&B's.
    """
    space = {"plan": tune.grid_search([p.to_dict() for p in plans])}
    continues = can_continue(storage.child("tune"), name)
    return _fit(
        name, space, storage, plans, max_concurrent=max_concurrent, callbacks=callbacks, continues=continues
    )


def run_search(
    plan: RunPlan,
    name: str,
    search: SearchConfig,
    axes: Mapping[str, Axis],
    storage: Storage,
    journal: Path,
    callbacks: Sequence[Any] = (),
) -> ResultGrid:
    """Search some settings of a run; trials that an earlier, interrupted call has finished are not
    repeated.

    Args:
        plan: what every trial starts from.
        name: the Optuna study's name, one for each base model and method.
        search: trials, scale, seed.
        axes: what is searched, by Optuna's name for it.
        storage: of the sweep.
        journal: Optuna's journal, which optuna-dashboard reads.
        callbacks: for Ray Tune, such as W&B's.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {axis: _domain(axes[axis], search.log_scale) for axis in axes}
    journal.parent.mkdir(parents=True, exist_ok=True)
    continues = can_continue(storage.child("tune"), name, journal)
    algorithm = PrunedTrials(
        metric=SCORE,
        mode="max",
        sampler=optuna.samplers.TPESampler(seed=search.seed, multivariate=True, constant_liar=True),
        study_name=name,
        storage=JournalStorage(JournalFileBackend(str(journal))),
    )
    values, scheduler = plan.to_dict(), None
    if search.early_stopping == "asha":
        about: dict[str, Any] = {"epochs": plan.config.train.epochs, "storage": storage.root, "plan": values}
        scheduler = EpochASHA(search, **about)
        callbacks = [*callbacks, StoppedRuns(search, **about)]
    return _fit(
        name, space, storage, [plan], plan=values, algorithm=algorithm, scheduler=scheduler,
        samples=search.trials, max_concurrent=search.max_concurrent, callbacks=callbacks, continues=continues,
    )  # fmt: skip


def _domain(axis: Axis, log_scale: bool) -> Any:
    """What Tune samples an axis from."""
    if axis.values:
        return tune.choice(list(axis.values))
    low, high = axis.low, axis.high
    assert low is not None and high is not None
    if isinstance(low, int) and isinstance(high, int):
        return (tune.lograndint if log_scale else tune.randint)(low, high + 1)
    return (tune.loguniform if log_scale else tune.uniform)(low, high)


def _fit(
    name: str,
    space: dict[str, Any],
    storage: Storage,
    runs: Sequence[RunPlan],
    *,
    plan: dict[str, Any] | None = None,
    algorithm: Any = None,
    scheduler: Any = None,
    samples: int = 1,
    max_concurrent: int | None,
    callbacks: Sequence[Any],
    continues: bool,
) -> ResultGrid:
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", str(snapshot_seconds(storage)))
    if os.environ.get("BEARRAY_WORKER_LOGS") != "1":  # a run's folder says why it has failed, and so do we
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    tune_folder = storage.child("tune")
    about = {
        "storage": storage.root,
        "plan": plan,
        "gpu": uses_gpu("auto"),
        "start_timeout": os.environ[START_TIMEOUT],
        "attempt": uuid.uuid4().hex,
    }
    trainable = tune.with_resources(tune.with_parameters(_drive, **about), {"CPU": DRIVER_CPUS})
    path = f"{tune_folder.root}/{name}"
    if continues:
        tuner = tune.Tuner.restore(
            path, trainable, resume_unfinished=True, restart_errored=True, param_space=space
        )
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=space,
            tune_config=tune.TuneConfig(
                metric=SCORE,
                mode="max",
                search_alg=algorithm,
                scheduler=scheduler,
                num_samples=samples,
                max_concurrent_trials=concurrent_trials([run.config for run in runs], max_concurrent),
                # A driver takes seconds to start, and is then used for the next run. Not where trials are
                # stopped early: their workers are freed only by the end of the driver's process.
                reuse_actors=scheduler is None,
                trial_dirname_creator=_trial_folder,
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=tune_folder.root,
                verbose=0,
                callbacks=[StopWithoutStorage(), *callbacks],
                failure_config=tune.FailureConfig(max_failures=LOST_TRIALS),
            ),
        )
    return tuner.fit()


def _trial_folder(trial: Any) -> str:
    """Short: Ray's default holds every parameter, here a whole config, which is longer than a file name
    may be."""
    return str(trial.trial_id)


def _each(results: ResultGrid) -> list[Any]:
    return [results[i] for i in range(len(results))]


def run_ids(results: ResultGrid) -> list[str]:
    """Run ids of the trials that were trained to their end."""
    return [
        r.metrics[REPORTED] for r in _each(results) if r.error is None and r.metrics and REPORTED in r.metrics
    ]
