"""All runs of all storages in one table, and in several where they cannot be ranked against each other.

Runs are ranked only beside runs that were tested on the same cases of the same data. Runs that differ in
nothing but their seed are one entry, as in a report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from bearray.errors import ConfigError
from bearray.method_names import method_name
from bearray.report.cells import METRICS, metric_values
from bearray.report.collect import collect
from bearray.report.cost import PARTS
from bearray.report.records import ALL_TITLES, DECODINGS, Run
from bearray.report.rows import HARMLESS, SEEDS, ordered, replicates, same_cases, value_of, varying
from bearray.stats import bootstrap_interval

SORTS = (*METRICS, "valid", "method", "base-model", "seconds", "created")
"""What a leaderboard can be sorted by; the test metrics and valid (validation NDCG@10) also give places."""
FILTERS = ("dataset", "method", "base_model", "status")
"""Properties of a run by which a leaderboard can be filtered."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """A test metric: mean over test cases (each its mean over the seeds), 95% interval over users."""

    mean: float
    low: float
    high: float
    seed_sd: float | None
    """Standard deviation of the seeds' means; None with one seed."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One run, or several that differ in their seed only."""

    runs: tuple[Run, ...]
    decoding: str | None
    """By which it was tested (`DECODINGS`, or `ALL_TITLES`); None: it was not."""
    settings: Mapping[str, str]
    """By dotted name: those in which it differs from runs of the same method."""
    scores: Mapping[str, Score]
    """By metric; empty without a test."""
    place: int | None = None
    """1 for the best of its table by what the leaderboard is sorted by; equal ones share a place."""

    @property
    def run(self) -> Run:
        return self.runs[0]

    @property
    def frame(self) -> pd.DataFrame | None:
        """The first run's test cases; None: it was not tested."""
        return None if self.decoding is None else self.run.tested(self.decoding)

    @property
    def valid(self) -> float | None:
        """Validation NDCG@10 of the best epoch, the mean over the seeds."""
        return _mean([run.valid("ndcg@10") for run in self.runs])

    @property
    def train_seconds(self) -> float | None:
        return _mean([run.seconds("train") for run in self.runs])

    @property
    def total_seconds(self) -> float | None:
        """Training, validation and test; None where none was recorded."""
        parts = [_mean([run.seconds(part) for run in self.runs]) for part in PARTS]
        known = [seconds for seconds in parts if seconds is not None]
        return sum(known) if known else None


@dataclass(frozen=True, kw_only=True)
class Board:
    """Entries that may be ranked against each other."""

    dataset: str
    data_hash: str | None
    cases: int | None
    """Test cases; None where no entry was tested."""
    users: int | None
    entries: tuple[Entry, ...]
    notes: tuple[str, ...]


def gather(storages: Sequence[tuple[str, Path]]) -> list[Run]:
    """All runs of some storages, each once; with several storages a run's id begins with its storage.

    Args:
        storages: (what the storage is called, its folder).

    Raises:
        MissingFileError, DataError: as `collect`.
    """
    found: dict[Path, Run] = {}
    for name, folder in storages:
        for run in collect(folder).runs:
            run_id = f"{name}/{run.id}" if len(storages) > 1 else run.id
            found.setdefault(run.folder.resolve(), replace(run, id=run_id))
    return list(found.values())


def chosen_runs(runs: Sequence[Run], wanted: Mapping[str, Sequence[str]], decoding: str | None) -> list[Run]:
    """The runs of which every property in `wanted` (`FILTERS`) is one of the words, whatever their case.

    Args:
        decoding: only runs that were tested by it.

    Raises:
        ConfigError: a word that no run has; the message says which there are.
    """
    kept = list(runs)
    for name, words in wanted.items():
        for word in words:
            if not any(_is(run, name, word) for run in runs):
                there = sorted({_shown(run, name) for run in runs})
                option = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{option} is {word!r}; the runs have {', '.join(there)}")
        if words:
            kept = [run for run in kept if any(_is(run, name, word) for word in words)]
    if decoding is not None:
        kept = [run for run in kept if run.tested(decoding) is not None]
    if not kept:
        raise ConfigError(f"none of the {len(runs)} runs is left; ask for less (--method, --decoding, ...)")
    return kept


def _shown(run: Run, name: str) -> str:
    """A property as the tables have it."""
    value = str(getattr(run, name))
    return method_name(value) if name == "method" else value


def _is(run: Run, name: str, word: str) -> bool:
    """Whether a property is a word: as the tables have it, or as the run's files do."""
    return word.casefold() in (_shown(run, name).casefold(), str(getattr(run, name)).casefold())


def build_boards(runs: Iterable[Run], *, decoding: str | None = None, sort: str = "ndcg@10") -> list[Board]:
    """Leaderboards, one for each set of test cases, those with most entries first.

    Args:
        runs: with distinct ids.
        decoding: by which scores are shown; None: each run's own.
        sort: one of `SORTS`. Metrics fall, the rest rises; entries without the value come last.

    Raises:
        ConfigError: another sort.
    """
    if sort not in SORTS:
        raise ConfigError(f"--sort is {sort!r}; it must be one of {', '.join(SORTS)}")
    kept = ordered(runs)
    rows = [
        group
        for status in dict.fromkeys(run.status for run in kept)
        for group in replicates(run for run in kept if run.status == status)
    ]
    entries = [_entry(tuple(group), decoding) for group in rows]
    boards = [_board(own, sort) for own in _apart(_with_settings(entries))]
    return sorted(boards, key=lambda b: (-len(b.entries), b.dataset, b.data_hash or "", b.cases or 0))


def _entry(runs: tuple[Run, ...], decoding: str | None) -> Entry:
    first = runs[0]
    by = decoding or first.normalize
    if by not in first.predictions and decoding is None:
        by = next((d for d in DECODINGS if d in first.predictions), by)
    found = [(run, frame) for run in runs if (frame := run.tested(by)) is not None]
    if not found:
        return Entry(runs=runs, decoding=None, settings={}, scores={})
    tested, frames = tuple(run for run, _ in found), [frame for _, frame in found]
    users = frames[0]["user_id"].to_numpy()
    scores = {}
    for metric in METRICS:
        each = [metric_values(frame["rank"].to_numpy(dtype=float), metric) for frame in frames]
        mean, low, high = bootstrap_interval(np.mean(each, axis=0), users)
        means = [float(values.mean()) for values in each]
        sd = float(np.std(means, ddof=1)) if len(means) > 1 else None
        scores[metric] = Score(mean=mean, low=low, high=high, seed_sd=sd)
    return Entry(runs=tested, decoding=ALL_TITLES if first.is_baseline else by, settings={}, scores=scores)


def _with_settings(entries: Sequence[Entry]) -> list[Entry]:
    """What sets an entry apart from others of its objective, decoder and base model."""
    alike: dict[tuple[str | None, ...], list[Run]] = {}
    for entry in entries:
        alike.setdefault(_family(entry), []).append(entry.run)
    names = {
        key: [n for n in varying(runs) if n not in SEEDS and not n.startswith(HARMLESS)]
        for key, runs in alike.items()
    }
    return [
        replace(entry, settings={n: str(value_of(entry.run, n)) for n in names[_family(entry)]})
        for entry in entries
    ]


def _family(entry: Entry) -> tuple[str | None, ...]:
    """Equal for a sweep's method, its trials, and its variants under labels of their own."""
    run = entry.run
    method = run.method if run.is_baseline else run.objective
    return method, str(value_of(run, "decoding.method")), run.base_model, run.data_hash


def _apart(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Entries by their test cases; those without a test join the ones with the same data and sample."""
    boards: dict[object, list[Entry]] = {}
    board_of_sample: dict[object, object] = {}
    for entry in entries:
        if entry.frame is not None:
            key = same_cases(entry.run, entry.frame)
            board_of_sample.setdefault(_sample(entry.run, "test"), key)
            boards.setdefault(key, []).append(entry)
    for entry in entries:
        if entry.decoding is None:
            sample = _sample(entry.run, "test")
            boards.setdefault(board_of_sample.get(sample, sample), []).append(entry)
    return list(boards.values())


def _sample(run: Run, split: str) -> tuple[object, ...]:
    """By what the windows of a split are chosen."""
    data = run.settings.get("data") or {}
    name = "" if run.data_hash else run.dataset
    return name, run.data_hash, str(data.get(f"{split}_windows")), str(data.get("sample_seed"))


def _board(entries: Sequence[Entry], sort: str) -> Board:
    notes = []
    tested = next((e for e in entries if e.frame is not None), None)
    frame = None if tested is None else tested.frame
    if len({e.decoding for e in entries} - {None, ALL_TITLES}) > 1:
        notes.append("Entries were decoded in different ways; --decoding shows one of them.")
    ranked = sort in (*METRICS, "valid")
    if sort == "valid" and len({_sample(e.run, "valid") for e in entries}) > 1:
        ranked = False
        notes.append("Validation windows differ between these runs, so their validation gives no places.")
    first = (tested or entries[0]).run
    return Board(
        dataset=first.dataset,
        data_hash=first.data_hash,
        cases=None if frame is None else len(frame),
        users=None if frame is None else int(frame["user_id"].nunique()),
        entries=tuple(_placed(_sorted(entries, sort), sort) if ranked else _sorted(entries, sort)),
        notes=tuple(notes),
    )


def _sorted(entries: Sequence[Entry], sort: str) -> list[Entry]:
    values = {id(entry): _value(entry, sort) for entry in entries}
    known = [entry for entry in entries if values[id(entry)] is not None]
    falling = sort in (*METRICS, "valid")
    known.sort(key=lambda entry: values[id(entry)], reverse=falling)  # type: ignore[arg-type, return-value]
    return known + [entry for entry in entries if values[id(entry)] is None]


def _value(entry: Entry, sort: str) -> float | str | None:
    if sort in METRICS:
        return entry.scores[sort].mean if entry.scores else None
    found: dict[str, float | str | None] = {
        "valid": entry.valid,
        "method": _shown(entry.run, "method").casefold(),
        "base-model": entry.run.base_model.casefold(),
        "seconds": entry.total_seconds,
        "created": entry.run.created,
    }
    return found[sort]


def _placed(entries: Sequence[Entry], sort: str) -> list[Entry]:
    values = [_value(e, sort) for e in entries]
    return [
        replace(entry, place=None if value is None else values.index(value) + 1)
        for entry, value in zip(entries, values, strict=True)
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
