"""The order in which a sweep's runs are trained, and which of them are tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from ray.tune import ResultGrid

from bearray.config import config_hash, override
from bearray.method_names import method_name
from bearray.runs import Storage
from bearray.tuning.config import SweepConfig
from bearray.tuning.plans import Place
from bearray.tuning.search import run_ids, run_methods, run_search
from bearray.tuning.trial import CONFIG, RESULT, RunPlan, finished, reason, run_needed
from bearray.tuning.watch import say

Plans = Mapping[Place, RunPlan]


@dataclass
class Trained:
    """How the training of all runs ended."""

    chosen: dict[Place, Storage] = field(default_factory=dict)
    """The run folders to test: of a searched method the best by validation at the first seed, and its
    settings at the others."""
    failed: dict[Place, str] = field(default_factory=dict)
    """The runs that are missing, and why."""


def train_all(sweep: SweepConfig, plans: Plans, storage: Storage, callbacks: Sequence[Any] = ()) -> Trained:
    """Train everything: runs that need nothing, runs that start from one of those, searches, and what the
    searches chose at the other seeds. A run that fails stops only those that start from it.

    Args:
        plans: as `plan_runs`, of all base models.
        callbacks: for Ray Tune, such as W&B's.
    """
    stages = _Stages(sweep, plans, storage, callbacks)
    first_seed = sweep.all_seeds[0]
    single = {place: plan for place, plan in plans.items() if place.method not in sweep.searched}
    stages.train("methods", {k: p for k, p in single.items() if run_needed(p.config) is None})
    stages.train("methods-started", {k: p for k, p in single.items() if run_needed(p.config) is not None})
    best: dict[Place, RunPlan] = {}
    for place, plan in plans.items():
        if place.method in sweep.searched and place.seed == first_seed and stages.startable(place, plan):
            settings = stages.search(place, plan)
            for seed in sweep.all_seeds[1:] if settings else ():
                other = replace(place, seed=seed)
                changed = override(plans[other].config, settings)
                best[other] = replace(plans[other], config=changed, role="method")
    stages.train("seeds", best)
    return stages.trained


class _Stages:
    def __init__(self, sweep: SweepConfig, plans: Plans, storage: Storage, callbacks: Sequence[Any]) -> None:
        self.sweep, self.plans, self.storage, self.callbacks = sweep, plans, storage, callbacks
        self.trained = Trained()

    def folder(self, run_id: str) -> Storage:
        return self.storage.child("runs", run_id)

    def startable(self, place: Place, plan: RunPlan) -> bool:
        """Whether the run that this one starts from, if any, is there; where it is not, that is a failure."""
        needed = run_needed(plan.config)
        if needed is None or finished(self.folder(needed)) is not None:
            return True
        self.trained.failed[place] = f"{needed}, from which it starts, is not finished"
        return False

    def check_storage(self, why: str) -> None:
        """End the sweep when a run has failed because of the storage, which would fail all others, too.

        Raises:
            StorageError: with the storage, what is wrong and how to go on.
        """
        trouble = self.storage.trouble(why)
        if trouble is not None:
            raise trouble

    def train(self, name: str, plans: Plans) -> None:
        """Train runs that are given in full. `name`: how the name of the Ray Tune experiment begins."""
        plans = {place: plan for place, plan in plans.items() if self.startable(place, plan)}
        if not plans:
            return
        # The same command may ask for other runs than before: more seeds, some of the methods, or what a
        # repeated trial made the choice.
        name = f"{name}-{config_hash(sorted(p.run_id for p in plans.values()))}"
        say(f"training {', '.join(_words(place, self.sweep) for place in plans)}")
        results = run_methods(
            list(plans.values()),
            self.storage,
            name=name,
            max_concurrent=self.sweep.search.max_concurrent,
            callbacks=self.callbacks,
        )
        why = "; ".join(reason(error) for error in results.errors)
        for place, plan in plans.items():
            folder = self.folder(plan.run_id)
            if finished(folder) is not None:
                self.trained.chosen[place] = folder
                continue
            told = folder.read_json(RESULT).get("error") if folder.exists(RESULT) else why
            self.check_storage(f"{told} {why}")
            self.trained.failed[place] = str(told or "its training ended without a result")
            say((f"{_words(place, self.sweep)} failed:", "red"), f" {self.trained.failed[place]}")

    def search(self, place: Place, plan: RunPlan) -> dict[str, Any]:
        """Search what is searched of the method; the best trial's settings, or nothing where all failed."""
        search, name, axes = self.sweep.search, study_name(place), self.sweep.axes(place.method)
        words = ", ".join("lambda" if axis == "lam" else axis for axis in axes)
        say(f"searching {words} of {_words(place, self.sweep)}: {search.trials} trials")
        results: ResultGrid = run_search(
            plan, name, search, axes, self.storage, journal(self.storage, name), self.callbacks
        )
        for error in results.errors:
            self.check_storage(str(error))
            say(("a trial failed:", "red"), f" {reason(error)}")
        ids = list(dict.fromkeys(run_ids(results)))
        if not ids:
            self.trained.failed[place] = f"all trials failed; {self.storage.root}/runs/*/result.json say why"
            return {}
        chosen = choose([self.folder(run_id) for run_id in ids])
        self.trained.chosen[place] = chosen
        run = chosen.read_json(CONFIG)["run"]
        return {axis.setting: reduce(getitem, axis.setting.split("."), run) for axis in axes.values()}


def choose(folders: Sequence[Storage]) -> Storage:
    """The finished run with the highest validation NDCG@10; of equal ones the first by name.

    One that was stopped early is left out: its learning rate never came to its end. Ray's order changes when
    a search is continued, and a rerun must not test a second run.
    """
    by_name = sorted((f for f in folders if finished(f) is not None), key=lambda folder: folder.root)
    return max(by_name, key=lambda folder: folder.read_json(RESULT)["valid"]["ndcg@10"])


def study_name(place: Place) -> str:
    """A name for the search of a method on a base model that is fit for a file; the hash keeps folders of one
    name apart."""
    last = place.base.rstrip("/").rpartition("/")[2]
    words = "".join(c if c.isalnum() else "-" for c in last)
    return f"{place.method}-{words}-{config_hash(place.base, 4)}"


def journal(storage: Storage, name: str) -> Path:
    """Optuna's journal: in storage where that is a folder, else beside the user's other caches."""
    if not storage.remote:
        return Path(storage.root) / "optuna" / f"{name}.log"
    return Path.home() / ".cache" / "bearray" / "optuna" / f"{name}-{config_hash(storage.root)}.log"


def _words(place: Place, sweep: SweepConfig) -> str:
    seed = f", seed {place.seed}" if len(sweep.all_seeds) > 1 else ""
    return f"{method_name(place.method.upper())} on {place.base}{seed}"
