"""A sweep from its first check to its report. Rerunning it continues it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bearray.addresses import refuse_secrets
from bearray.backbones import base_model_kind, resolve_base
from bearray.config import EvaluationConfig, RunConfig, config_hash, differences, override, to_dict
from bearray.data import Dataset, open_dataset
from bearray.data.summary import dataset_stats
from bearray.errors import BearrayError, BusyError, ConfigError, ResumeError
from bearray.evaluation import evaluate_run
from bearray.evaluation.pool import pool_size
from bearray.lock import held
from bearray.method_names import method_name
from bearray.report.anywhere import report_on
from bearray.runs import SWEEP, Storage
from bearray.task import Task, load_task
from bearray.trained import open_run
from bearray.training.checks import check_objective
from bearray.training.resources import check_resources
from bearray.tuning.cluster import DRIVER_CPUS, connect
from bearray.tuning.config import SweepConfig
from bearray.tuning.departures import departures
from bearray.tuning.loggers import make_callbacks
from bearray.tuning.plans import Place, plan_runs
from bearray.tuning.settings import method_settings
from bearray.tuning.stages import train_all
from bearray.tuning.trial import FREE_TO_CHANGE, RESULT, RunPlan, run_needed
from bearray.tuning.watch import say, watching

MAY_CHANGE = {
    *(f"sweep.run.{name}" for name in FREE_TO_CHANGE),
    "sweep.search.max_concurrent",
    "sweep.report",
    "sweep.storage",
    "sweep.test",
}
"""Settings that a rerun may change, because no result depends on them."""
_OF_METHODS = {"sweep.methods", "sweep.method_settings", "sweep.search.methods", "sweep.search.space"}
"""Settings that a rerun may change where the methods that were there keep theirs."""


def run_sweep(sweep: SweepConfig, *, only: Collection[str] | None = None, address: str | None = None) -> str:
    """Search, train, choose by validation, test once, report.

    Args:
        sweep: everything that is to be done.
        only: methods that are trained and tested in this call, and SFT where one starts from it; the others
            are left to later calls. None: all.
        address: of the Ray cluster; see `bearray.tuning.cluster.connect`.

    Returns:
        Path of the report, or of the storage where none was asked for.

    Raises:
        BearrayError: a setting, the data, the storage or the cluster cannot work; found before anything is
            trained. Also when a method's run failed; the others are trained, tested and reported first.
        BusyError: another process is at work on the storage.
        StorageError: the storage has become full or read-only; nothing more is tried.
    """
    storage, dataset = check_sweep(sweep)
    with held(storage, "sweep"):
        try:
            return _run(sweep, storage, dataset, only, address)
        except BusyError:
            raise
        except Exception as error:  # of any library that writes there, in any words
            trouble = storage.trouble("\n".join(traceback.format_exception(error)))
            if trouble is None:
                raise
            raise trouble from error


def _run(
    sweep: SweepConfig,
    storage: Storage,
    dataset: Dataset,
    only: Collection[str] | None,
    address: str | None,
) -> str:
    began = time.monotonic()
    connect(address)
    _check_cluster([sweep.run, *_own_runs(sweep)])
    _begin(sweep, dataset, storage)
    plans: dict[Place, RunPlan] = {}
    for base in sweep.base_model:
        say(f"base model {base} ({base_model_kind(base)})")
        of_base = plan_runs(sweep, dataset, base, resolve_base(base, dataset))  # a local one is built now
        of_base = _wanted(sweep, of_base, only)
        _check_plans(list(of_base.values()))
        plans |= of_base
    callbacks = make_callbacks(sweep.loggers, project=f"bearray-{dataset.name}")
    with watching(storage.child("runs")):
        trained = train_all(sweep, plans, storage, callbacks)
        for place, folder in trained.chosen.items() if sweep.test else ():
            _test(folder, place, sweep.run.evaluation)
    say(f"sweep finished in {(time.monotonic() - began) / 60:.1f} minutes; storage: {storage.root}")
    report = report_on(storage.root) if sweep.report else storage.root
    if sweep.report:
        say("report: ", (report, "bold"))
    if trained.failed:
        failed = "; ".join(
            f"{method_name(p.method.upper())} on {p.base}, seed {p.seed}: {why}"
            for p, why in trained.failed.items()
        )
        raise BearrayError(f"these runs failed: {failed}; run the same command again to continue")
    return report


def check_sweep(sweep: SweepConfig) -> tuple[Storage, Dataset]:
    """Everything that can be wrong before a cluster is needed."""
    for name in ("data_dir", "storage"):
        if not getattr(sweep, name):
            raise ConfigError(f"{name} is empty; give --{name.replace('_', '-')}")
    if sweep.run.data.path or sweep.run.model.base != RunConfig().model.base:
        raise ConfigError(
            "a sweep takes its data and models as --data-dir and --base-model, not as "
            "--data.path and --model.base"
        )
    for axis in (axis for method in sweep.searched for axis in sweep.axes(method).values()):
        for bound in axis.bounds:
            override(sweep.run, {axis.setting: bound})
    make_callbacks(sweep.loggers, project="check")
    for base in sweep.base_model:
        refuse_secrets(base)
    storage = Storage(sweep.storage)
    storage.check_writable()
    dataset = open_dataset(sweep.data_dir, strict=sweep.run.data.strict)
    _check_unchanged(sweep, dataset, storage)
    return storage, dataset


def _content(sweep: SweepConfig, dataset: Dataset) -> dict[str, Any]:
    return {"sweep": to_dict(sweep), "dataset": dataset.name, "data_hash": dataset.content_hash}


def _check_unchanged(sweep: SweepConfig, dataset: Dataset, storage: Storage) -> None:
    if not storage.exists(SWEEP):
        return
    old = storage.read_json(SWEEP)
    old["sweep"]["search"].setdefault("space", [])  # earlier versions had none
    new = _content(sweep, dataset)
    free = MAY_CHANGE | ({"sweep.seeds"} if _adds_seeds(old["sweep"], sweep) else set())
    free |= _OF_METHODS if _adds_methods(old["sweep"], sweep) else set()
    changed = [
        line for line in differences({k: old[k] for k in new}, new) if line.partition(":")[0] not in free
    ]
    if changed:
        raise ResumeError(
            f"{storage.root} holds a sweep with other settings ({'; '.join(changed)}); "
            "repeat its settings to continue it, or choose another --storage"
        )


def _adds_seeds(old: Mapping[str, Any], sweep: SweepConfig) -> bool:
    """Whether the seeds of the earlier call are the first of this one's: the search's seed is the first."""
    before = tuple(old.get("seeds") or ()) or (sweep.run.train.seed,)
    return sweep.all_seeds[: len(before)] == before


def _adds_methods(old: Mapping[str, Any], sweep: SweepConfig) -> bool:
    """Whether the methods of the earlier call are among this one's, and their runs are what they were."""
    before = replace(
        sweep,
        methods=tuple(old["methods"]),
        method_settings=tuple(old.get("method_settings") or ()),
        search=replace(
            sweep.search, methods=tuple(old["search"]["methods"]), space=tuple(old["search"]["space"])
        ),
    )

    def of(whose: SweepConfig, method: str) -> tuple[Any, ...]:
        own = method_settings(whose.method_settings, whose.objectives, whose.run)
        return (
            whose.objectives[method],
            own.get(method, {}),
            whose.axes(method),
            whose.starts_from_sft(method),
        )

    return all(
        method in sweep.objectives and of(before, method) == of(sweep, method) for method in before.objectives
    )


def _begin(sweep: SweepConfig, dataset: Dataset, storage: Storage) -> None:
    if storage.exists(SWEEP):
        _check_unchanged(sweep, dataset, storage)  # another may have come and gone since the first check
        say(f"continuing the sweep in {storage.root}")
        old = storage.read_json(SWEEP)
        now = to_dict(sweep)
        added = {key: now[key] for key in ("seeds", "methods", "method_settings")}
        added["search"] = old["sweep"]["search"] | {key: now["search"][key] for key in ("methods", "space")}
        if old["sweep"] != (content := old["sweep"] | added):
            storage.write_json(SWEEP, old | {"sweep": content, "departures": departures(sweep)})
        return
    content = _content(sweep, dataset)
    storage.write_json(
        SWEEP, content | {"data_stats": dataset_stats(dataset), "departures": departures(sweep)}
    )
    say(f"new sweep in {storage.root}")


def _wanted(
    sweep: SweepConfig, plans: dict[Place, RunPlan], only: Collection[str] | None
) -> dict[Place, RunPlan]:
    """The plans of some methods, and of SFT where one of them starts from it."""
    if only is None:
        return plans
    unknown = sorted(set(only) - set(sweep.objectives))
    if unknown:
        raise ConfigError(
            f"only has {', '.join(unknown)}; the sweep's methods are {', '.join(sweep.objectives)}"
        )
    wanted = {*only, *(["sft"] if any(sweep.starts_from_sft(method) for method in only) else [])}
    return {place: plan for place, plan in plans.items() if place.method in wanted}


def _own_runs(sweep: SweepConfig) -> list[RunConfig]:
    """The methods' settings as far as they can be known before the base model is there."""
    own = method_settings(sweep.method_settings, sweep.objectives, sweep.run)
    return [override(sweep.run, changes) for changes in own.values()]


def _check_cluster(runs: Sequence[RunConfig]) -> None:
    for run in runs:
        check_resources(run, driver_cpus=DRIVER_CPUS)
        pool_size(run, 1)


def _check_plans(plans: Sequence[RunPlan]) -> None:
    """Fail now where an objective cannot work, and not when its turn comes; a task is loaded once for all
    plans that share one."""
    tasks: dict[str, Task] = {}
    for plan in plans:
        config = plan.config
        if run_needed(config) is not None:  # its adapter is not there yet
            config = override(config, {"train.init_adapter": None})
        key = config_hash([to_dict(config.data), to_dict(config.model)])
        if key not in tasks:
            tasks[key] = load_task(config)
        check_objective(config, tasks[key])


def _test(folder: Storage, place: Place, resources: EvaluationConfig) -> None:
    """Decode the test split with a chosen run, once, and complete its result.

    Args:
        resources: its actors, their CPUs and device are used; all else is the run's own.
    """
    result = folder.read_json(RESULT)
    name = folder.root.rpartition("/")[2]
    if "test" in result:
        say(f"{name}: already tested")
        return
    method = method_name(place.method.upper())
    say(f"{name}: chosen for {method} on {place.base} by validation; decoding the test split")
    run = open_run(folder)
    actors = {
        f"evaluation.{name}": getattr(resources, name) for name in ("actors", "cpus_per_actor", "device")
    }
    config = override(run.config, actors)
    measured = evaluate_run(
        config,
        run.checkpoint,
        folder,
        on_shard=lambda done, total: say(f"{name}: test shard {done}/{total}"),
    )
    seconds = result["seconds"] | measured["seconds"]
    folder.write_json(RESULT, result | {"chosen": True, "test": measured["test"], "seconds": seconds})
    own = measured["test"][config.decoding.normalize]["all"]
    say(f"{name}: test " + ", ".join(f"{k} {own[k]['mean']:.4f}" for k in own if "@10" in k))
