"""What is left to do, and what it will take, before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bearray.config import RunConfig, override
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
from bearray.planning.lengths import work_of
from bearray.planning.sweep import MethodCost
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


def costs(config: PaperConfig, steps: Sequence[Step]) -> list[Cost]:
    """What each step still has to do, and how long that takes.

    Raises:
        BearrayError: a data set cannot be used.
    """
    device = _device(config)
    works: dict[Part, Work] = {}  # all of a part's runs have the same windows
    found = []
    for step in steps:
        left = max(0, step.runs() - step.done())
        hours, why = None, "" if left == 0 else "not estimated: short beside the training of LLMs"
        if left and step.trains is not None:
            try:
                if step.part not in works:
                    works[step.part] = work_of(_settings(step))
                hours = _training(config, step, left, works[step.part], device)
                why = ""
            except ModelError as error:  # a local base model that is not built yet has no known size
                why = f"not estimated: {error}"
        found.append(Cost(step=step, left=left, hours=hours, why=why))
    return found


def _device(config: PaperConfig) -> Device:
    if config.gpu is not None:
        return card(config.gpu)
    return device_here() if config.scale == "paper" else CPU_CORE


def _settings(step: Step) -> RunConfig:
    sweep = step.trains
    assert sweep is not None
    return override(sweep.run, {"data.path": sweep.data_dir, "model.base": step.part.base})


def _training(config: PaperConfig, step: Step, left: int, work: Work, device: Device) -> Time:
    sweep = step.trains
    assert sweep is not None
    speeds = _speeds(config, step.part)
    there = tested_runs(config, step.part)
    start = _settings(step)
    own = method_settings(sweep.method_settings, sweep.objectives, start)
    parts: list[Time] = []
    for method, objective in sweep.objectives.items():
        if method not in step.methods:
            continue
        run = override(start, {**own.get(method, {}), "objective.name": objective})
        missing = [seed for seed in sweep.all_seeds if (method, seed) not in there]
        # the search is done with the first seed; the others take what it chose
        searched = method in sweep.searched and sweep.all_seeds[0] in missing
        cost = MethodCost(
            name=method,
            run=estimate_run(run, work=work, device=device, speeds=speeds),
            runs=len(missing) + (sweep.search.trials - 1 if searched else 0),
            tested=len(missing) if sweep.test else 0,
            searched=searched,
        )
        parts.append(cost.device_hours)
    return total(parts) if sweep.test else total(parts).times(left / step.runs())


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
        state = "done" if not cost.left else f"{cost.left} of {cost.step.runs()} to do"
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
