"""Read every run folder under a storage folder, checked, into plain records.

JSON and Parquet only: nothing is unpickled, and no setting is read from a name. A file that is damaged
stops the report with its name, because a table that silently lost a run is worse than no table. A run that
failed or never finished is not damage: it is kept, with the reason, and listed in the report.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bearray.errors import DataError, MissingFileError
from bearray.report.files import (
    check_against_result,
    read_json,
    read_metrics,
    read_predictions,
    read_result,
)
from bearray.report.records import DECODINGS, Collection, Run, Sweep

_NEVER_HOLDS_RUNS = {
    "checkpoints",
    "optuna",
    "predictions",
    *(f"predictions_{name}" for name in DECODINGS),
    "report",
}


def collect(storage: Path) -> Collection:
    """Read all run folders (config.json beside metrics.jsonl or result.json) and sweep.json files under
    `storage`.

    Raises:
        MissingFileError: `storage` is not there, is not a folder, or holds no run.
        DataError: a file in it is damaged; the message names file, and line or row.
    """
    if not storage.is_dir():
        what = "is not a folder" if storage.exists() else "does not exist"
        raise MissingFileError(f"{storage} {what}; give the storage folder of a sweep (its --storage)")
    runs: list[Run] = []
    sweeps: list[Sweep] = []
    for folder, names in _folders(storage):
        if "config.json" in names and names & {"metrics.jsonl", "result.json"}:
            runs.append(read_run(folder, folder.relative_to(storage).as_posix()))
        if "sweep.json" in names:
            sweeps.append(_read_sweep(storage, folder))
    if not runs:
        raise MissingFileError(
            f"{storage} holds no run: nowhere under it is a folder with config.json and metrics.jsonl; "
            "give the storage folder of a sweep (its --storage)"
        )
    return Collection(name=storage.resolve().name, runs=short_models(runs), sweeps=tuple(sweeps))


def short_models(runs: Sequence[Run]) -> tuple[Run, ...]:
    """Runs whose base models that are local folders are called by their last name, where that is still one
    name a model."""
    folders = {r.base_model for r in runs if Path(r.base_model).is_absolute()}
    taken = Counter([Path(f).name for f in folders] + sorted({r.base_model for r in runs} - folders))
    return tuple(
        replace(r, base_model=Path(r.base_model).name)
        if r.base_model in folders and taken[Path(r.base_model).name] == 1
        else r
        for r in runs
    )


def _folders(storage: Path) -> Iterator[tuple[Path, set[str]]]:
    def stop(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}")

    for folder, children, files in os.walk(storage, onerror=stop):
        children[:] = sorted(c for c in children if c not in _NEVER_HOLDS_RUNS and not c.startswith("."))
        yield Path(folder), set(files)


def read_run(folder: Path, run_id: str) -> Run:
    """One run folder, checked; `run_id` is its name among others.

    Raises:
        DataError: a file in it is damaged; the message names file, and line or row.
    """
    path = folder / "config.json"
    config = read_json(path)
    for key in ("run", "role", "method", "dataset", "base_model"):
        if key not in config:
            raise DataError(
                f"{path} has no {key!r}; a run's config.json has run, role, method, dataset, base_model"
            )
    if not isinstance(config["run"], dict):
        raise DataError(f"{path}: 'run' is {config['run']!r}; it must be the settings of the run")
    if config["role"] not in ("method", "trial"):
        raise DataError(f"{path}: 'role' is {config['role']!r}; it must be 'method' or 'trial'")
    result = read_result(folder / "result.json")
    steps, epochs = read_metrics(folder / "metrics.jsonl")
    own = config["run"].get("decoding", {}).get("normalize", "trie")
    if own not in ("trie", "full"):
        raise DataError(f"{path}: run.decoding.normalize is {own!r}; it must be 'trie' or 'full'")
    predictions = {}
    for name in DECODINGS:  # without test results the shards are of a decoding that has not ended
        if result is not None and name in (result.get("test") or {}):
            where = folder / ("predictions" if name == own else f"predictions_{name}")
            if not where.is_dir():
                raise DataError(f"{folder / 'result.json'} has test results ({name}) but {where} is missing")
            predictions[name] = read_predictions(where)
            check_against_result(where, predictions[name], result, name)
    return Run(
        id=run_id,
        folder=folder,
        settings=config["run"],
        role=config["role"],
        method=str(config["method"]),
        dataset=str(config["dataset"]),
        base_model=str(config["base_model"]),
        base_model_kind=str(config.get("base_model_kind") or "unknown"),
        data_hash=config.get("data_hash"),
        git=config.get("git"),
        created=config.get("created"),
        versions={str(k): str(v) for k, v in (config.get("versions") or {}).items()},
        steps=steps,
        epochs=epochs,
        result=result,
        predictions=predictions,
    )


def _read_sweep(storage: Path, folder: Path) -> Sweep:
    raw = read_json(folder / "sweep.json")
    return Sweep(
        id=folder.relative_to(storage).as_posix(),
        sweep=raw.get("sweep") or {},
        data_stats=raw.get("data_stats") or {},
        departures=tuple(str(d) for d in raw.get("departures") or ()),
    )
