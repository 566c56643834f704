"""A sweep from its first check to its report. Rerunning it continues it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.tune import ResultGrid

from bearray.backbones import base_model_kind, resolve_base
from bearray.config import ObjectiveConfig, RunConfig, config_hash, differences, override, to_dict
from bearray.data import Dataset, open_dataset
from bearray.data.summary import dataset_stats
from bearray.errors import BearrayError, ConfigError, ResumeError
from bearray.evaluation import evaluate_run
from bearray.evaluation.pool import pool_size
from bearray.evaluation.trained import open_run
from bearray.report.anywhere import report_on
from bearray.runs import Storage, absolute
from bearray.task import load_task
from bearray.training.loop import check_objective
from bearray.training.trainer import check_resources
from bearray.tuning.cluster import DRIVER_CPUS, connect
from bearray.tuning.config import AXES, SweepConfig
from bearray.tuning.departures import departures
from bearray.tuning.loggers import make_callbacks
from bearray.tuning.search import run_ids, run_methods, run_search
from bearray.tuning.trial import RESULT, RunPlan, finished, reason
from bearray.tuning.watch import say, watching

SWEEP = "sweep.json"
FREE_TO_CHANGE = (
    "evaluation.actors",
    "cpus_per_",
    "search.max_concurrent",
    "report",
    "storage",
    "max_failures",
)
"""Settings that a rerun may change, because no result depends on them."""


def run_sweep(sweep: SweepConfig, *, address: str | None = None) -> str:
    """Search, train, choose by validation, test once, report.

    Args:
        sweep: everything that is to be done.
        address: of the Ray cluster; see `bearray.tuning.cluster.connect`.

    Returns:
        Path of the report, or of the storage where none was asked for.

    Raises:
        BearrayError: a setting, the data, the storage or the cluster cannot work; found before anything is
            trained. Also when a method's run failed; other runs are finished first.
    """
    began = time.monotonic()
    storage, dataset = check_sweep(sweep)
    connect(address)
    check_resources(sweep.run, driver_cpus=DRIVER_CPUS)
    pool_size(sweep.run, 1)
    _begin(sweep, dataset, storage)
    plans = {base: _plans(sweep, dataset, base) for base in sweep.base_model}
    for of_base in plans.values():
        task = load_task(next(iter(of_base.values())).config)
        for plan in of_base.values():
            check_objective(plan.config, task)
    for base, by_method in _train(sweep, dataset, plans, storage).items():
        for method, folders in by_method.items():
            _test(_choose(folders), method, base)
    say(f"sweep finished in {(time.monotonic() - began) / 60:.1f} minutes; storage: {storage.root}")
    if not sweep.report:
        return storage.root
    report = report_on(storage.root)
    say(f"report: [bold]{report}[/bold]")
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
    for axis, name in AXES.items():
        for bound in getattr(sweep.search, axis):
            override(sweep.run, {name: bound})
    make_callbacks(sweep.loggers, project="check")
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
    new = _content(sweep, dataset)
    changed = [
        line
        for line in differences({k: old[k] for k in new}, new)
        if not any(name in line.partition(":")[0] for name in FREE_TO_CHANGE)
    ]
    if changed:
        raise ResumeError(
            f"{storage.root} holds a sweep with other settings ({'; '.join(changed)}); "
            "repeat its settings to continue it, or choose another --storage"
        )


def _begin(sweep: SweepConfig, dataset: Dataset, storage: Storage) -> None:
    if storage.exists(SWEEP):
        say(f"continuing the sweep in {storage.root}")
        return
    content = _content(sweep, dataset)
    storage.write_json(
        SWEEP, content | {"data_stats": dataset_stats(dataset), "departures": departures(sweep)}
    )


def _plans(sweep: SweepConfig, dataset: Dataset, base: str) -> dict[str, RunPlan]:
    """What each method's run starts from, the base model resolved (a local one is built now)."""
    say(f"base model {base} ({base_model_kind(base)})")
    resolved = resolve_base(base, dataset)
    run = override(sweep.run, {"data.path": absolute(sweep.data_dir), "model.base": resolved})
    return {
        method: RunPlan(
            config=_with_objective(run, method),
            role="trial" if method == "bear" else "method",
            method=method.upper(),
            dataset=dataset.name,
            base_model=base,
            base_model_kind=base_model_kind(base),
            data_hash=dataset.content_hash,
        )
        for method in sweep.methods
    }


def _with_objective(run: RunConfig, method: str) -> RunConfig:
    """What only regularisers use goes back to its defaults for other methods, so that it does not make two
    runs of one."""
    fresh = ObjectiveConfig()
    regularised = method in ("bear", "beam_simulation", "sdpo_bear")
    unused = {} if regularised else {f"objective.{n}": getattr(fresh, n) for n in ("lam", "xi", "form")}
    return override(run, {**unused, "objective.name": method})


def _train(
    sweep: SweepConfig, dataset: Dataset, plans: dict[str, dict[str, RunPlan]], storage: Storage
) -> dict[str, dict[str, list[Storage]]]:
    """All runs of all methods; run folders by base model and method."""
    folders: dict[str, dict[str, list[Storage]]] = {base: {} for base in plans}
    callbacks = make_callbacks(
        sweep.loggers, project=f"bearray-{next(iter(plans.values()))[sweep.methods[0]].dataset}"
    )
    single = [(b, m, p) for b, by_method in plans.items() for m, p in by_method.items() if m != "bear"]
    with watching(storage.child("runs"), sweep.run.train.epochs):
        if single:
            say(f"training {', '.join(f'{m.upper()} on {b}' for b, m, _ in single)}")
            results = run_methods(
                [p for *_, p in single],
                storage,
                max_concurrent=sweep.search.max_concurrent,
                callbacks=callbacks,
            )
            _fail_on_errors(results, [p for *_, p in single], storage)
            for base, method, plan in single:
                folders[base][method] = [storage.child("runs", plan.run_id)]
        for base, by_method in plans.items():
            if "bear" not in by_method:
                continue
            name = _study_name(base)
            say(f"searching lambda and xi of BEAR on {base}: {sweep.search.trials} trials")
            results = run_search(
                by_method["bear"], name, sweep.search, storage, _journal(storage, name), callbacks
            )
            ids = run_ids(results)
            for error in results.errors:
                say(f"[red]a trial failed:[/red] {reason(error)}")
            if not ids:
                raise BearrayError(f"all trials on {base} failed; {storage.root}/runs/*/result.json say why")
            folders[base]["bear"] = [storage.child("runs", i) for i in dict.fromkeys(ids)]
    return folders


def _study_name(base: str) -> str:
    """A name for the search on a base model that is fit for a file; the hash keeps folders of one name
    apart."""
    last = base.rstrip("/").rpartition("/")[2]
    return f"bear-{''.join(c if c.isalnum() else '-' for c in last)}-{config_hash(base, 4)}"


def _journal(storage: Storage, name: str) -> Path:
    """Optuna's journal: in storage where that is a folder, else beside the user's other caches."""
    if "://" not in storage.root:
        return Path(storage.root) / "optuna" / f"{name}.log"
    return Path.home() / ".cache" / "bearray" / "optuna" / f"{name}-{config_hash(storage.root)}.log"


def _fail_on_errors(results: ResultGrid, plans: Sequence[RunPlan], storage: Storage) -> None:
    failed = [p for p in plans if finished(storage.child("runs", p.run_id)) is None]
    if failed or results.num_errors:
        why = "; ".join(reason(e) for e in results.errors)
        raise BearrayError(
            f"{', '.join(p.run_id for p in failed)} failed: {why}; run the same command again to continue"
        )


def _choose(folders: Sequence[Storage]) -> Storage:
    """The run with the highest validation NDCG@10; of equal ones the first by name.

    Ray's order changes when a search is continued, and a rerun must not test a second run.
    """
    by_name = sorted(folders, key=lambda folder: folder.root)
    return max(by_name, key=lambda folder: folder.read_json(RESULT)["valid"]["ndcg@10"])


def _test(folder: Storage, method: str, base: str) -> None:
    """Decode the test split with a chosen run, once, and complete its result."""
    result = folder.read_json(RESULT)
    name = folder.root.rpartition("/")[2]
    if "test" in result:
        say(f"{name}: already tested")
        return
    say(f"{name}: chosen for {method.upper()} on {base} by validation; decoding the test split")
    run = open_run(folder)
    config = run.config
    measured = evaluate_run(
        config,
        run.checkpoint,
        folder,
        on_shard=lambda done, total: say(f"{name}: test shard {done}/{total}"),
    )
    seconds = result["seconds"] | {"test": measured["seconds"]}
    folder.write_json(RESULT, result | {"chosen": True, "test": measured["test"], "seconds": seconds})
    own = measured["test"][config.decoding.normalize]["all"]
    say(f"{name}: test " + ", ".join(f"{k} {own[k]['mean']:.4f}" for k in own if "@10" in k))
