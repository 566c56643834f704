"""Faults that are planted in training workers: the worker itself is the product's, its steps are not.

A test replaces the function that Ray Train is given (`plant`), or what runs in each trial of a sweep
(`plant_in_trials`), by one that first changes `Loop.train_step` in the worker's own process. Each step that a
worker begins is also written to a journal, which outlives the worker, so that work done twice can be counted.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import pytest
import ray


@dataclass(frozen=True)
class Fault:
    """What goes wrong, where and how often."""

    journal: str
    """File of the journal: a line of JSON for each step that a worker has begun."""
    step: int | None = None
    """At the beginning of which step, counted from 0; None: nothing goes wrong."""
    rank: int = 0
    """On which worker."""
    do: Literal["hang", "memory"] = "hang"
    """hang: sleep for ever, also to be killed there; memory: allocate until there is no more."""
    times: int = 1
    """The first so many times that the worker begins this step, all attempts together."""
    where: Mapping[str, Any] = field(default_factory=dict)
    """Only in runs of these settings, by dotted name; the journal, too, is of these runs only."""


def plant(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    """In the workers of runs that this process trains by `bearray.training.trainer.train`."""
    monkeypatch.setattr("bearray.training.trainer.train_loop", functools.partial(faulty_train_loop, fault))


def plant_in_trials(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    """In the workers of a sweep's runs, which are started by processes of their own."""
    from bearray.tuning import search

    drive = search._drive

    # Without the name of what it stands for: pickle would find the product's own by it.
    def faulty_drive(space: dict[str, Any], **parameters: Any) -> None:
        from bearray.training import trainer

        trainer.train_loop = functools.partial(faulty_train_loop, fault)
        drive(space, **parameters)

    monkeypatch.setattr(search, "_drive", faulty_drive)


def faulty_train_loop(fault: Fault, settings: dict[str, Any]) -> None:
    """The product's entry point of a worker, after the fault was planted in its process."""
    from bearray.training.loop import Loop
    from bearray.training.worker import train_loop

    step_as_it_is = Loop.train_step

    def train_step(loop: Loop, step: int, batch: np.ndarray) -> None:
        if all(_setting(loop.config, name) == value for name, value in fault.where.items()):
            _begun(fault, loop.rank, step)
        step_as_it_is(loop, step, batch)

    Loop.train_step = train_step  # type: ignore[method-assign]
    train_loop(settings)


def _setting(config: Any, name: str) -> Any:
    return functools.reduce(getattr, name.split("."), config)


def _begun(fault: Fault, rank: int, step: int) -> None:
    line = {
        "rank": rank, "step": step, "pid": os.getpid(), "node": ray.get_runtime_context().get_node_id(),
    }  # fmt: skip
    with Path(fault.journal).open("a") as file:
        file.write(json.dumps(line) + "\n")
    if (rank, step) == (fault.rank, fault.step) and begun(fault)[rank, step] <= fault.times:
        if fault.do == "memory":
            _use_up_memory()
        while True:
            time.sleep(1)


def _use_up_memory() -> None:
    """Lower this process's limit to little more than it has, and take more: the allocator really refuses."""
    import torch

    now = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**28, now + 2**28))
    kept = []
    while True:
        kept.append(torch.ones(2**24))


def journal(fault: Fault) -> list[dict[str, Any]]:
    """The journal's lines: rank, step, pid, node."""
    path = Path(fault.journal)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def begun(fault: Fault) -> Counter[tuple[int, int]]:
    """How often each (rank, step) was begun."""
    return Counter((line["rank"], line["step"]) for line in journal(fault))


def stuck(fault: Fault) -> dict[str, Any] | None:
    """The journal's line of a worker that has reached its fault, if one has."""
    lines = [x for x in journal(fault) if (x["rank"], x["step"]) == (fault.rank, fault.step)]
    return lines[-1] if lines else None
