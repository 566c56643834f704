"""What is left to do, and what it will take, before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bearray.config import RunConfig, override
from bearray.data import Dataset
from bearray.errors import ConfigError, ModelError
from bearray.paper.config import PaperConfig
from bearray.paper.parts import Part
from bearray.paper.steps import Step, tested_runs
from bearray.planning import (
    CPU_CORE,
    Device,
    Speed,
    Time,
    Work,
    device_here,
    estimate_run,
    read_speeds,
    total,
)
from bearray.planning.cards import card
from bearray.tuning.settings import method_settings


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A step, and the device hours of what it still has to train and test."""

    step: Step
    left: int
    """Runs or measurements that are not there."""
    hours: Time | None
    """Hours of all devices together (`seconds` holds hours); None where that is not estimated."""
    why: str = ""
    """Why it is not."""


def costs(config: PaperConfig, steps: Sequence[Step], datasets: Mapping[str, Dataset]) -> list[Cost]:
    """What each step still has to do, and how long that takes."""
    device = _device(config)
    found = []
    for step in steps:
        left = max(0, step.runs - step.done())
        hours, why = None, "" if left == 0 else "not estimated: short beside the training of LLMs"
        if left and step.trains is not None:
            try:
                hours = _training(config, step, left, datasets[step.part.data_name], device)
                why = ""
            except ModelError as error:  # a local base model that is not built yet has no known size
                why = f"not estimated: {error}"
        found.append(Cost(step=step, left=left, hours=hours, why=why))
    return found


def _device(config: PaperConfig) -> Device:
    if config.gpu is not None:
        return card(config.gpu)
    return device_here() if config.scale == "paper" else CPU_CORE


def _training(config: PaperConfig, step: Step, left: int, dataset: Dataset, device: Device) -> Time:
    sweep = step.trains
    assert sweep is not None
    speeds = _speeds(config, step.part)
    there = tested_runs(config, step.part)
    own = method_settings(sweep.method_settings, sweep.objectives, sweep.run)
    parts: list[Time] = []
    for method, objective in sweep.objectives.items():
        if method not in step.methods:
            continue
        changes: dict[str, Any] = {
            **own.get(method, {}),
            "objective.name": objective,
            "model.base": step.part.base,
        }
        run = override(sweep.run, changes)
        seeds = sum((method, seed) not in there for seed in sweep.all_seeds)
        runs = seeds + (sweep.search.trials - 1 if method in sweep.searched and seeds else 0)
        cost = estimate_run(run, work=_work(run, dataset), device=device, speeds=speeds)
        training = cost.training.times(cost.workers / 3_600)
        parts += [
            training.times(runs),
            cost.test.times(cost.actors / 3_600).times(seeds if sweep.test else 0),
        ]
    return total(parts) if sweep.test else total(parts).times(left / step.runs)


def _work(run: RunConfig, dataset: Dataset) -> Work:
    """Windows of a run; lengths are those of the committed benchmarks."""
    have = {name: len(dataset.split(name)) for name in ("train", "valid", "test")}
    limit = {name: getattr(run.data, f"{name}_windows") for name in have}
    counts = {name: min(n, limit[name] or n) for name, n in have.items()}
    return Work(train_windows=counts["train"], valid_windows=counts["valid"], test_windows=counts["test"])


def _speeds(config: PaperConfig, part: Part) -> list[Speed]:
    """Measured speeds of a part's own finished runs."""
    found: list[Speed] = []
    for folder in tested_runs(config, part).values():
        try:
            found += read_speeds(folder.root)
        except (ConfigError, ModelError):  # too short a run to tell
            continue
    return found


def lines(found: Sequence[Cost], config: PaperConfig) -> list[str]:
    """The plan for a reader: a line a step, and what it takes together."""
    words = []
    for cost in found:
        state = "done" if not cost.left else f"{cost.left} of {cost.step.runs} to do"
        hours = "" if cost.hours is None else f", {hours_text(cost.hours)}"
        why = f" ({cost.why})" if cost.why else ""
        words.append(f"{cost.step.part.folder}: {cost.step.title}: {state}{hours or why}")
    known = [cost.hours for cost in found if cost.hours is not None]
    if known:
        words.append(
            f"training and tests of LLMs together: {hours_text(total(known))} of a {_device(config).name}"
        )
    return words


def hours_text(hours: Time) -> str:
    """2.5 device hours (1.2 to 5.0, computed)."""
    spread = f"{hours.low:.2g} to {hours.high:.2g}"
    return f"{hours.seconds:.2g} device hours ({spread}, {hours.basis})"
