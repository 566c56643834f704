"""Runs and trials on the cluster, through Ray Tune: each is a light driver that starts its own Ray Train
workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import ResultGrid
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.search.optuna import OptunaSearch

from bearray.config import override
from bearray.runs import Storage
from bearray.training.worker import SCORE
from bearray.tuning.cluster import DRIVER_CPUS, concurrent_trials
from bearray.tuning.config import AXES, SearchConfig
from bearray.tuning.trial import RunPlan, execute
from bearray.tuning.trust import check_own

REPORTED = "run_id"


def _drive(space: dict[str, Any], *, storage: str, plan: dict[str, Any] | None = None) -> None:
    """Body of a trial: train the run and tell Tune its best validation score last, which is what Optuna
    takes."""
    base = RunPlan.from_dict(plan if plan is not None else space["plan"])
    changes = {AXES[axis]: space[axis] for axis in AXES if axis in space}
    run = replace(base, config=override(base.config, changes))
    result = execute(run, Storage(storage).child("runs", run.run_id), [TuneReportCallback()])
    tune.report({SCORE: result["valid"]["ndcg@10"], "epoch": result["best_epoch"], REPORTED: run.run_id})


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
    largest = max(plans, key=lambda p: p.config.train.num_workers * p.config.train.cpus_per_worker)
    return _fit(name, space, storage, largest, max_concurrent=max_concurrent, callbacks=callbacks)


def run_search(
    plan: RunPlan,
    name: str,
    search: SearchConfig,
    storage: Storage,
    journal: Path,
    callbacks: Sequence[Any] = (),
) -> ResultGrid:
    """Search lambda and xi from a run; trials that an earlier, interrupted call has finished are not
    repeated.

    Args:
        plan: what every trial starts from.
        name: the Optuna study's name, one for each base model and method.
        search: ranges, trials, seed.
        storage: of the sweep.
        journal: Optuna's journal, which optuna-dashboard reads.
        callbacks: for Ray Tune, such as W&B's.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sample = tune.loguniform if search.log_scale else tune.uniform
    space = {axis: sample(*getattr(search, axis)) for axis in AXES}
    journal.parent.mkdir(parents=True, exist_ok=True)
    algorithm = OptunaSearch(
        metric=SCORE,
        mode="max",
        sampler=optuna.samplers.TPESampler(seed=search.seed, multivariate=True, constant_liar=True),
        study_name=name,
        storage=JournalStorage(JournalFileBackend(str(journal))),
    )
    return _fit(
        name, space, storage, plan, plan=plan.to_dict(), algorithm=algorithm, samples=search.trials,
        max_concurrent=search.max_concurrent, callbacks=callbacks,
    )  # fmt: skip


def _fit(
    name: str,
    space: dict[str, Any],
    storage: Storage,
    example: RunPlan,
    *,
    plan: dict[str, Any] | None = None,
    algorithm: Any = None,
    samples: int = 1,
    max_concurrent: int | None,
    callbacks: Sequence[Any],
) -> ResultGrid:
    tune_folder = storage.child("tune")
    trainable = tune.with_resources(
        tune.with_parameters(_drive, storage=storage.root, plan=plan), {"CPU": DRIVER_CPUS}
    )
    path = f"{tune_folder.root}/{name}"
    if tune.Tuner.can_restore(path):
        check_own(path)
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
                num_samples=samples,
                max_concurrent_trials=concurrent_trials(example.config, max_concurrent),
                reuse_actors=False,
                trial_dirname_creator=_trial_folder,
            ),
            run_config=tune.RunConfig(
                name=name, storage_path=tune_folder.root, verbose=0, callbacks=list(callbacks)
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
    """Run ids of the trials that ended well."""
    return [
        r.metrics[REPORTED] for r in _each(results) if r.error is None and r.metrics and REPORTED in r.metrics
    ]
