"""What is left to do, and what it will take, before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bearray.config import RunConfig, override
from bearray.data import open_dataset
from bearray.errors import ConfigError, ModelError
from bearray.paper.config import PaperConfig
from bearray.paper.parts import Part
from bearray.paper.steps import Step, tested_runs
from bearray.paper.sweeps import part_sweep
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

GROUNDING = 2.0
"""Time of a window in the teacher's grounding, over one in beam search with the softmax over the vocabulary:
Office's 15,400 training windows on two cores, once."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A step, and the device hours of what it still has to train and test."""

    step: Step
    left: int
    """Runs or measurements that are not there."""
    hours: Time | None
    """Hours of all devices together (`seconds` holds hours); None where nothing of it is estimated."""
    without: str = ""
    """What of it is not in them, or why there are none."""


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
        hours, without = None, f"not estimated: {step.unpriced}" if left and step.unpriced else ""
        if left and (step.trains is not None or step.decodes is not None):
            sweep = step.trains or part_sweep(config, step.part)
            start = override(sweep.run, {"data.path": sweep.data_dir, "model.base": step.part.base})
            try:
                if step.part not in works:
                    works[step.part] = work_of(start)
                work = works[step.part]
                if step.trains is not None:
                    hours = _training(config, step, left, start, work, device)
                else:
                    hours = _decoding(config, step, start, work, device)
            except ModelError as error:  # a local base model that is not built yet has no known size
                without = f"not estimated: {error}"
        found.append(Cost(step=step, left=left, hours=hours, without=without))
    return found


def _device(config: PaperConfig) -> Device:
    if config.gpu is not None:
        return card(config.gpu)
    return device_here() if config.scale == "paper" else CPU_CORE


def _decoding(config: PaperConfig, step: Step, start: RunConfig, work: Work, device: Device) -> Time | None:
    """By the rate of SFT's own decoding; None where nothing is decoded.

    The teacher's lists are BIGRec's grounding.
    """
    assert step.decodes is not None
    asked = step.decodes()
    speeds = _speeds(config, step.part)
    sft = override(start, {"objective.name": "sft"})
    cost = estimate_run(sft, work=work, device=device, speeds=speeds)
    times = [
        cost.validation.times(asked.valid * cost.workers / 3_600),
        cost.test.times(asked.test * cost.actors / 3_600),
    ]
    if asked.train:
        windows = len(open_dataset(start.data.path, strict=start.data.strict).train)
        unconstrained = override(sft, {"decoding.normalize": "full"})
        every = replace(work, valid_windows=windows)
        cost = estimate_run(unconstrained, work=every, device=device, speeds=speeds)
        seconds = GROUNDING * cost.validation.seconds
        times.append(Time.of(asked.train * seconds * cost.workers / 3_600, _less_sure(cost.validation.basis)))
    together = total(times)
    return together if together.seconds else None


def _less_sure(basis: str) -> str:
    """Of a rate that was measured for something alike."""
    return "measured elsewhere" if basis == "measured" else basis


def _training(
    config: PaperConfig, step: Step, left: int, start: RunConfig, work: Work, device: Device
) -> Time:
    sweep = step.trains
    assert sweep is not None
    speeds = _speeds(config, step.part)
    there = tested_runs(config, step.part)
    trained = set(step.methods)
    if any(sweep.starts_from_sft(method) for method in trained):  # a sweep trains and tests it first
        trained.add("sft")
    own = method_settings(sweep.method_settings, sweep.objectives, start)
    parts: list[Time] = []
    for method, objective in sweep.objectives.items():
        if method not in trained:
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
        without = f" ({cost.without})" if cost.without else ""
        words.append(f"{cost.step.part.folder}: {cost.step.title}: {state}{hours}{without}")
    known = [cost.hours for cost in found if cost.hours is not None]
    if known:
        words.append(f"what is estimated, together: {hours_text(total(known))} of a {_device(config).name}")
    return words


def hours_text(hours: Time) -> str:
    """2.5 device hours (1.2 to 5.0, computed)."""
    spread = f"{hours.low:.2g} to {hours.high:.2g}"
    return f"{hours.seconds:.2g} device hours ({spread}, {hours.basis})"
