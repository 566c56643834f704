"""A step, and what the kinds of step have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bearray.errors import BearrayError
from bearray.evaluation.pool import OnShard
from bearray.paper.config import PaperConfig
from bearray.paper.parts import Part
from bearray.paper.sweeps import part_storage
from bearray.runs import Storage
from bearray.trained import CONFIG, RESULT, TrainedRun, open_run
from bearray.tuning.config import SweepConfig
from bearray.tuning.watch import say


@dataclass(frozen=True, kw_only=True)
class Decodings:
    """How often an LLM decodes the splits of a part, beside what the runs do that are trained meanwhile."""

    valid: int = 0
    """The validation windows of a run."""
    test: int = 0
    """Its test windows, in all versions of the tables."""
    train: int = 0
    """All training windows of the data set."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Some runs or measurements of one part."""

    title: str
    part: Part
    runs: Callable[[], int]
    """Runs or measurements in it; those of some are known only once others are done."""
    done: Callable[[], int]
    """How many of them are there."""
    do: Callable[[], None]
    """What makes the others; call it again to continue."""
    check: Callable[[], None] = lambda: None
    """Raises ResumeError where what is there was made with other settings."""
    trains: SweepConfig | None = None
    """The sweep that trains its runs, if it has LLMs trained."""
    methods: frozenset[str] = frozenset()
    """Those of the sweep's methods that it trains."""
    decodes: Callable[[], Decodings] | None = None
    """What an LLM still decodes in it."""
    unpriced: str = ""
    """What in it takes time that is not estimated."""


def tested_runs(config: PaperConfig, part: Part) -> dict[tuple[str, int], Storage]:
    """A part's runs that are chosen and tested, by method and seed."""
    runs = part_storage(config, part).child("runs")
    found = {}
    for folder in map(runs.child, runs.names()):
        result = folder.read_json(RESULT) if folder.exists(RESULT) else {}
        if result.get("chosen") and "test" in result:
            about = folder.read_json(CONFIG)
            found[about["method"].lower(), int(about["run"]["train"]["seed"])] = folder
    return found


def trained_run(config: PaperConfig, part: Part, method: str, seed: int) -> TrainedRun:
    """A tested run, opened.

    Raises:
        BearrayError: it is not there, since an earlier step failed.
    """
    folder = tested_runs(config, part).get((method, seed))
    if folder is None:
        raise BearrayError(
            f"{method.upper()} of {part.folder}, seed {seed}, is not there: its training failed"
        )
    return open_run(folder)


def telling(what: str) -> OnShard:
    """Says which shard of something is done."""
    return lambda done, total: say(f"{what}: shard {done}/{total}")
