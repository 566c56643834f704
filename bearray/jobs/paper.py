"""How far the paper's sweeps are, from their common storage alone; and either kind of storage as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bearray.config import from_dict
from bearray.errors import BearrayError, MissingFileError
from bearray.jobs.progress import GOING_ON, Progress, Stage, read_progress
from bearray.jobs.told import Told
from bearray.paper.config import PaperConfig
from bearray.paper.parts import needs
from bearray.paper.stored import BASELINES, DOCUMENT, RECORD, read_record, sweeps_in
from bearray.runs import SWEEP, Storage
from bearray.tuning.trial import CONFIG, RESULT


@dataclass(frozen=True, kw_only=True)
class PaperProgress(Told):
    """All that `bearray paper` trains in a storage; what it measures on trained runs is in its log alone."""

    PARTS: ClassVar[Mapping[str, type[Told]]] = {"sweeps": Progress, "baselines": Stage}
    SHAPE: ClassVar[Mapping[str, Any]] = {"storage!": str, "waiting!": [str], "document!": bool}

    storage: str
    sweeps: list[Progress]
    """Those that have begun."""
    waiting: list[str]
    """Parts that were asked for in the last call and have not begun, by their folders."""
    baselines: list[Stage]
    """Runs of recommenders that know items by number, by data set."""
    document: bool
    """Whether there is a document, which steps write anew as they end."""


def read_paper(storage: Storage) -> PaperProgress:
    """How far the paper in a storage is.

    Raises:
        MissingFileError: there is none.
        DataError: paper.json or a run's file is damaged.
        ConfigError: paper.json asks for what cannot be.
    """
    record = read_record(storage)
    config = from_dict(PaperConfig, record["config"])
    begun = sweeps_in(storage)
    wanted = needs(config)
    baselines = {name: len(methods) * len(config.seeds) for name, methods in wanted.baselines.items()}
    return PaperProgress(
        storage=storage.root,
        sweeps=[read_progress(storage.child(name).root) for name in begun],
        waiting=[part.folder for part in wanted.methods if part.folder not in begun],
        baselines=list(_baselines(storage, dict.fromkeys(record["data"], 0) | baselines)),
        document=storage.exists(DOCUMENT),
    )


def _baselines(storage: Storage, wanted: Mapping[str, int]) -> Iterator[Stage]:
    """Of data sets that have some, or are to have some: `wanted` has how many, of every data set."""
    for name, count in wanted.items():
        folder = storage.child(name, BASELINES)
        runs = [run for each in folder.names() if (run := folder.child(each)).exists(CONFIG)]
        states = Counter(
            run.read_json(RESULT).get("status", GOING_ON) if run.exists(RESULT) else GOING_ON for run in runs
        )
        total = max(count, len(runs))
        if total:
            yield Stage(name=name, states=dict(states), total=total)


def read_any(place: str) -> Progress | PaperProgress:
    """How far the sweep, or the paper, in a storage is.

    Args:
        place: its folder or URI.

    Raises:
        MissingFileError: there is neither.
        DataError: a file is damaged.
    """
    storage = Storage(place)
    if storage.exists(SWEEP):
        return read_progress(place)
    if storage.exists(RECORD):
        return read_paper(storage)
    raise MissingFileError(
        f"{storage.root} holds no sweep (there is no {SWEEP}, and no {RECORD} either); it is either another "
        "folder or one in which nothing has begun"
    )


def any_or_reason(place: str) -> Progress | PaperProgress | str:
    """`read_any`, or why there is nothing to tell."""
    try:
        return read_any(place)
    except BearrayError as error:
        return str(error)


def any_from_dict(values: Mapping[str, Any]) -> Progress | PaperProgress:
    """What another machine made of `to_dict`.

    Raises:
        DataError: it is neither.
    """
    return (PaperProgress if "sweeps" in values else Progress).from_dict(values)
