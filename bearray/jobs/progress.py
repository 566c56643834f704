"""How far a sweep is, from its storage alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bearray.config import from_dict
from bearray.errors import DataError
from bearray.jobs.told import Told
from bearray.plain import Number, check_shape
from bearray.report.records import number
from bearray.runs import SWEEP, Storage, join
from bearray.training.written import METRICS
from bearray.tuning.config import SweepConfig
from bearray.tuning.trial import CONFIG, RESULT

SCORE = "valid_ndcg@10"
"""The entry of a run's epochs by which runs are chosen."""
GOING_ON = "going on"

_TRAIN = {"seed": Number(whole=True), "epochs": Number(whole=True, low=0)}
_CONFIG = {"run": {"train": _TRAIN}}
"""What is read of a run's config.json beside what `bearray.run_shapes` checks."""
_COUNT = Number(whole=True, low=0)


@dataclass(frozen=True, kw_only=True)
class RunProgress(Told):
    """One run folder."""

    SHAPE: ClassVar[Mapping[str, Any]] = {
        **dict.fromkeys(("run!", "method!", "base_model!", "stage!", "state!"), str),
        **dict.fromkeys(("epochs!", "shards!", "of_shards!"), _COUNT),
        "seed!": Number(whole=True),
        "epoch!": Number(),
        "best!": Number(null=True),
        "error!": (str, type(None)),
        "chosen!": bool,
    }

    run: str
    method: str
    base_model: str
    seed: int
    stage: str
    state: str
    """"going on" (or interrupted: a folder does not know), or what result.json says: finished, failed, ..."""
    epoch: float
    """Epochs done."""
    epochs: int
    """Epochs planned."""
    best: float | None
    """Best validation NDCG@10 so far."""
    error: str | None
    chosen: bool
    shards: int
    """Shards of the test split that are decoded, over all ways of decoding that have begun."""
    of_shards: int


@dataclass(frozen=True, kw_only=True)
class Stage(Told):
    """A part of a sweep, in runs."""

    SHAPE: ClassVar[Mapping[str, Any]] = {"name!": str, "states!": {"*": _COUNT}, "total!": _COUNT}

    name: str
    states: dict[str, int]
    """Runs by state."""
    total: int

    @property
    def finished(self) -> int:
        return self.states.get("finished", 0)

    @property
    def waiting(self) -> int:
        """Runs that have not begun."""
        return max(0, self.total - sum(self.states.values()))


@dataclass(frozen=True, kw_only=True)
class Progress(Told):
    """A sweep."""

    PARTS: ClassVar[Mapping[str, type[Told]]] = {"stages": Stage, "runs": RunProgress}
    SHAPE: ClassVar[Mapping[str, Any]] = {
        **dict.fromkeys(("storage!", "dataset!", "scale!"), str),
        "report!": (bool, type(None)),
    }

    storage: str
    dataset: str
    scale: str
    stages: list[Stage]
    """methods, search, seeds, test: those that the sweep has."""
    runs: list[RunProgress]
    report: bool | None
    """Whether there is a report, which a continued sweep writes again at its end; None: none is to be."""


def read_progress(place: str) -> Progress:
    """How far the sweep in a storage is.

    Args:
        place: its folder or URI.

    Raises:
        MissingFileError: there is no sweep.
        DataError: sweep.json or a run's file is damaged.
    """
    storage = Storage(place)
    content = storage.read_json(SWEEP)
    sweep = from_dict(SweepConfig, content.get("sweep", {}))
    folders = storage.child("runs")
    runs = [run for name in folders.names() if (run := _run(folders.child(name), name, sweep)) is not None]
    return Progress(
        storage=storage.root,
        dataset=str(content.get("dataset", "")),
        scale=sweep.scale,
        stages=list(_stages(sweep, runs)),
        runs=runs,
        report=storage.exists("report/index.html") or (False if sweep.report else None),
    )


def _run(folder: Storage, name: str, sweep: SweepConfig) -> RunProgress | None:
    if not folder.exists(CONFIG):  # another file, or a run whose first file is not written yet
        return None
    config = folder.read_json(CONFIG)
    check_shape(config, _CONFIG, join(folder.root, CONFIG))
    result = folder.read_json(RESULT) if folder.exists(RESULT) else {}
    rows = folder.read_lines(METRICS)
    train, method = config["run"].get("train", {}), config["method"].lower()
    scores = [score for row in rows if (score := number(row.get(SCORE))) is not None]
    shards, of_shards = _shards(folder)
    stage = "search" if config.get("role") == "trial" else "seeds" if method in sweep.searched else "methods"
    return RunProgress(
        run=name,
        method=method,
        base_model=config["base_model"],
        seed=int(train.get("seed", 0)),
        stage=stage,
        state=result.get("status", GOING_ON),
        epoch=max((_epoch(row, line, folder) for line, row in enumerate(rows, 1)), default=0.0),
        epochs=int(train.get("epochs", 0)),
        best=max(scores, default=None),
        error=result.get("error"),
        chosen=bool(result.get("chosen")) or of_shards > 0,
        shards=shards,
        of_shards=of_shards,
    )


def _epoch(row: Mapping[str, Any], line: int, folder: Storage) -> float:
    """The epoch that a line of metrics.jsonl is of.

    Raises:
        DataError: it is no number.
    """
    found = number(row.get("epoch", 0))
    if found is None:
        where = join(folder.root, METRICS)
        raise DataError(f"{where}, line {line}: epoch is {str(row['epoch'])[:80]!r}; it must be a number")
    return found


def _shards(folder: Storage) -> tuple[int, int]:
    """Shards that are there, and shards that there will be."""
    done = total = 0
    for name in folder.names():
        if name.partition("_")[0] == "predictions" and folder.exists(f"{name}/manifest.json"):
            manifest = folder.read_json(f"{name}/manifest.json")
            total += -(-int(manifest.get("rows", 0)) // int(manifest.get("shard_size", 1)))
            done += sum(file.endswith(".parquet") for file in folder.names(name))
    return done, total


def _stages(sweep: SweepConfig, runs: list[RunProgress]) -> Iterator[Stage]:
    bases, seeds = len(sweep.base_model), len(sweep.all_seeds)
    searched, methods = len(sweep.searched), len(sweep.objectives)
    totals = {
        "methods": (methods - searched) * bases * seeds,
        "search": searched * bases * sweep.search.trials,
        "seeds": searched * bases * (seeds - 1),
    }
    for name, total in totals.items():
        if total:
            states = Counter(run.state for run in runs if run.stage == name)
            yield Stage(name=name, states=dict(states), total=total)
    tests = Counter(
        "finished" if 0 < run.of_shards == run.shards else GOING_ON for run in runs if run.of_shards
    )
    if sweep.test or tests:
        yield Stage(name="test", states=dict(tests), total=methods * bases * seeds)
