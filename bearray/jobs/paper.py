"""How far the paper's sweeps are, from their common storage alone; and either kind of storage as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bearray.config import from_dict
from bearray.errors import BearrayError, MissingFileError
from bearray.jobs.progress import GOING_ON, PROGRESS, STAGE, Progress, Stage, of_this_version, read_progress
from bearray.paper.config import PaperConfig
from bearray.paper.parts import needs
from bearray.paper.stored import BASELINES, DOCUMENT, RECORD, read_record, sweeps_in
from bearray.plain import check_shape
from bearray.runs import SWEEP, Storage
from bearray.tuning.trial import CONFIG, RESULT

_PAPER: dict[str, Any] = {
    "storage!": str, "sweeps!": [PROGRESS], "waiting!": [str], "baselines!": [STAGE], "document!": bool,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PaperProgress:
    """All that `bearray paper` trains in a storage; what it measures on trained runs is in its log alone."""

    storage: str
    sweeps: list[Progress]
    """Those that have begun."""
    waiting: list[str]
    """Parts that were asked for in the last call and have not begun, by their folders."""
    baselines: list[Stage]
    """Runs of recommenders that know items by number, by data set."""
    document: bool
    """Whether there is a document; it is written anew after each step."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PaperProgress:
        """The inverse of `to_dict`.

        Raises:
            DataError: these are not the values of a `PaperProgress`.
        """
        with of_this_version():
            check_shape(values, _PAPER, "the cluster's answer")
            parts = {
                "sweeps": [Progress.from_dict(sweep) for sweep in values["sweeps"]],
                "baselines": [Stage(**stage) for stage in values["baselines"]],
            }
            return cls(**{**values, **parts})


def read_paper(storage: Storage) -> PaperProgress:
    """How far the paper in a storage is.

    Raises:
        MissingFileError: there is none.
        DataError: paper.json or a run's file is damaged.
        ConfigError: paper.json asks for what cannot be.
    """
    config = from_dict(PaperConfig, read_record(storage)["config"])
    begun = sweeps_in(storage)
    wanted = needs(config)
    return PaperProgress(
        storage=storage.root,
        sweeps=[read_progress(storage.child(name).root) for name in begun],
        waiting=[part.folder for part in wanted.methods if part.folder not in begun],
        baselines=list(
            _baselines(storage, {n: len(m) * len(config.seeds) for n, m in wanted.baselines.items()})
        ),
        document=storage.exists(DOCUMENT),
    )


def _baselines(storage: Storage, wanted: Mapping[str, int]) -> Iterator[Stage]:
    """Of data sets that have some, or are to have some."""
    for name in {**read_record(storage)["data"], **wanted}:
        folder = storage.child(name, BASELINES)
        runs = [run for each in folder.names() if (run := folder.child(each)).exists(CONFIG)]
        states = Counter(
            run.read_json(RESULT).get("status", GOING_ON) if run.exists(RESULT) else GOING_ON for run in runs
        )
        total = max(wanted.get(name, 0), len(runs))
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
