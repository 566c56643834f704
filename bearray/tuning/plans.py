"""What runs a sweep is made of, before any of them is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from bearray.backbones import base_model_kind
from bearray.config import ObjectiveConfig, RunConfig, differences, override, to_dict
from bearray.data import Dataset
from bearray.errors import ConfigError
from bearray.objectives import REGULARISED
from bearray.runs import absolute
from bearray.tuning.config import SweepConfig
from bearray.tuning.settings import method_settings
from bearray.tuning.space import LAMBDA_AND_XI
from bearray.tuning.trial import RunPlan, run_needed, run_place


@dataclass(frozen=True, order=True)
class Place:
    """Where a run stands in a sweep."""

    base: str
    """As the user named it."""
    method: str
    seed: int


def plan_runs(sweep: SweepConfig, dataset: Dataset, base: str, resolved: str) -> dict[Place, RunPlan]:
    """The runs on one base model, SFT's first; of a searched method what its trials start from.

    Args:
        base: the base model as the user named it. resolved: what workers can load.

    Raises:
        ConfigError: a method is to start from an adapter that its own settings do not fit.
    """
    run = override(sweep.run, {"data.path": absolute(sweep.data_dir), "model.base": resolved})
    own = method_settings(sweep.method_settings, sweep.objectives, run)
    plans: dict[Place, RunPlan] = {}
    for seed in sweep.all_seeds:
        for method in sorted(sweep.objectives, key=lambda m: m != "sft"):
            config = _with_objective(run, sweep.objectives[method])
            config = override(config, {**own.get(method, {}), "train.seed": seed})
            start = config.train.init_adapter
            if start is None and sweep.starts_from_sft(method):
                config = _after(plans[Place(base, "sft", seed)], config)
            elif start is not None and run_needed(config) is None:  # workers have other working directories
                config = override(config, {"train.init_adapter": absolute(start)})
            plans[Place(base, method, seed)] = RunPlan(
                config=config,
                role="trial" if method in sweep.searched else "method",
                method=method.upper(),
                dataset=dataset.name,
                base_model=base,
                base_model_kind=base_model_kind(base),
                data_hash=dataset.content_hash,
            )
    return plans


def trial_plan(space: dict[str, Any], plan: dict[str, Any] | None = None) -> RunPlan:
    """The run of a Ray Tune trial.

    Args:
        space: what Tune gives the trial: values of the searched axes, or the whole run as "plan".
        plan: what a search starts from, as `RunPlan.to_dict`.
    """
    base = RunPlan.from_dict(plan if plan is not None else space["plan"])
    changes = {LAMBDA_AND_XI.get(axis, axis): value for axis, value in space.items() if axis != "plan"}
    return replace(base, config=override(base.config, changes))


def _with_objective(run: RunConfig, objective: str) -> RunConfig:
    """What only regularisers use goes back to its defaults for other methods, so that it does not make two
    runs of one."""
    fresh = ObjectiveConfig()
    unused = (
        {}
        if objective in REGULARISED
        else {f"objective.{n}": getattr(fresh, n) for n in ("lam", "xi", "form")}
    )
    return override(run, {**unused, "objective.name": objective})


def _after(first: RunPlan, config: RunConfig) -> RunConfig:
    """A run that starts from the adapter of another one."""
    changed = differences(to_dict(first.config.model), to_dict(config.model), "model")
    if changed:
        raise ConfigError(
            f"{config.objective.name} starts from the adapter of {first.method}, whose model has other "
            f"settings ({'; '.join(changed)}); give both the same, or start_from none"
        )
    return override(config, {"train.init_adapter": run_place(first.run_id)})
