"""Read every run folder under a storage folder, checked, into plain records.

JSON and Parquet only: nothing is unpickled, and no setting is read from a name. A file that is damaged
stops the report with its name, because a table that silently lost a run is worse than no table. A run that
failed or never finished is not damage: it is kept, with the reason, and listed in the report.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bearray.config import config_hash
from bearray.errors import DataError, MissingFileError

NORMALIZERS = ("trie", "full")
PREDICTION_COLUMNS = ("user_id", "row", "target", "items", "rank", "warm")
_NEVER_HOLDS_RUNS = {"checkpoints", "predictions", "predictions_trie", "predictions_full", "optuna", "report"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run folder (DESIGN 7)."""

    id: str
    """The folder, relative to the storage, with forward slashes."""
    folder: Path
    settings: Mapping[str, Any]
    """`to_dict(RunConfig)`: the groups data, model, objective, train, decoding, evaluation."""
    role: str
    """Either method or trial."""
    method: str
    dataset: str
    base_model: str
    base_model_kind: str
    data_hash: str | None
    git: str | None
    created: str | None
    versions: Mapping[str, str]
    steps: pd.DataFrame
    """One row an optimiser step that was logged, by step; after a restart the later record of a step
    counts."""
    epochs: pd.DataFrame
    """One row a finished epoch, by epoch."""
    result: Mapping[str, Any] | None
    predictions: Mapping[str, pd.DataFrame] = field(repr=False)
    """By normaliser: one row a test case, sorted by `row`."""

    @property
    def status(self) -> str:
        """finished, failed or unfinished."""
        return "unfinished" if self.result is None else str(self.result["status"])

    @property
    def reason(self) -> str:
        """Why a run is not in the tables though it should be; empty for all others."""
        if self.result is None:
            done = f"epoch {int(self.epochs['epoch'].iloc[-1])}" if len(self.epochs) else "no epoch"
            last = f", last logged step {int(self.steps['step'].iloc[-1])}" if len(self.steps) else ""
            return f"there is no result.json; {done} finished{last}"
        if self.status == "failed":
            return str(self.result.get("error") or "no reason was recorded")
        if self.role == "method" and not self.predictions:
            return "trained, but the test split was not decoded to its end"
        return ""

    @property
    def chosen(self) -> bool:
        return bool(self.result and self.result.get("chosen"))

    @property
    def normalize(self) -> str:
        """The normaliser of the run's own decoding, which also chose its checkpoint."""
        return str(self.settings.get("decoding", {}).get("normalize", "trie"))

    @property
    def objective(self) -> str:
        return str(self.settings.get("objective", {}).get("name", self.method)).lower()

    @property
    def config_hash(self) -> str:
        return config_hash(dict(self.settings))

    def seconds(self, part: str) -> float | None:
        """Seconds of train, valid or test; None where they were not recorded."""
        return number(((self.result or {}).get("seconds") or {}).get(part))

    def valid(self, metric: str) -> float | None:
        """A validation metric at the best epoch: from result.json, else at the best epoch so far by
        NDCG@10."""
        value = number(((self.result or {}).get("valid") or {}).get(metric))
        if value is None and f"valid_{metric}" in self.epochs and "valid_ndcg@10" in self.epochs:
            ndcg = self.epochs["valid_ndcg@10"]
            if ndcg.notna().any():
                return number(float(self.epochs[f"valid_{metric}"].iloc[int(ndcg.argmax())]))
        return value


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One sweep.json."""

    id: str
    sweep: Mapping[str, Any]
    data_stats: Mapping[str, Any]
    departures: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Everything that a report is made from."""

    name: str
    """The storage folder's own name; never its full path, which says nothing to a reader elsewhere."""
    runs: tuple[Run, ...]
    sweeps: tuple[Sweep, ...]


def number(value: object) -> float | None:
    """A finite number, or None for anything else (JSON's null, a missing key, NaN)."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


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
            runs.append(_read_run(storage, folder))
        if "sweep.json" in names:
            sweeps.append(_read_sweep(storage, folder))
    if not runs:
        raise MissingFileError(
            f"{storage} holds no run: nowhere under it is a folder with config.json and metrics.jsonl; "
            "give the storage folder of a sweep (its --storage)"
        )
    return Collection(name=storage.resolve().name, runs=_short_models(runs), sweeps=tuple(sweeps))


def _short_models(runs: list[Run]) -> tuple[Run, ...]:
    """Base models that are local folders by their last name, where that is still one name a model."""
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


def _read_run(storage: Path, folder: Path) -> Run:
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
    result = _read_result(folder / "result.json")
    steps, epochs = _read_metrics(folder / "metrics.jsonl")
    own = config["run"].get("decoding", {}).get("normalize", "trie")
    if own not in NORMALIZERS:
        raise DataError(f"{path}: run.decoding.normalize is {own!r}; it must be 'trie' or 'full'")
    predictions = {}
    for name in NORMALIZERS:  # without test results the shards are of a decoding that has not ended
        if result is not None and name in (result.get("test") or {}):
            where = folder / ("predictions" if name == own else f"predictions_{name}")
            if not where.is_dir():
                raise DataError(f"{folder / 'result.json'} has test results ({name}) but {where} is missing")
            predictions[name] = _read_predictions(where)
            _check_against_result(where, predictions[name], result, name)
    return Run(
        id=folder.relative_to(storage).as_posix(),
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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; what is damaged is a DataError with the file's name."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: not JSON, or not UTF-8
        raise DataError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is damaged: it holds a {type(value).__name__}, not an object")
    return value


def _read_result(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    result = read_json(path)
    if result.get("status") not in ("finished", "failed"):
        raise DataError(f"{path}: 'status' is {result.get('status')!r}; it must be 'finished' or 'failed'")
    return result


def _read_metrics(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    records: dict[str, dict[float, dict[str, float]]] = {"step": {}, "epoch": {}}
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    for i, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {i}, is damaged: {error}") from error
        kind = record.get("kind") if isinstance(record, dict) else None
        key = number(record.get(kind)) if kind in records else None
        if kind is None or key is None:
            raise DataError(
                f"{path}, line {i}, is {line[:80]!r}; it must be an object of kind 'step' with a step or "
                "of kind 'epoch' with an epoch"
            )
        values = {k: number(v) for k, v in record.items() if k != "kind"}
        records[kind][key] = {k: math.nan if v is None else v for k, v in values.items()}

    def frame(kind: str) -> pd.DataFrame:
        rows = [records[kind][k] for k in sorted(records[kind])]
        return pd.DataFrame(rows) if rows else pd.DataFrame({kind: pd.Series(dtype=float)})

    return frame("step"), frame("epoch")


def _read_predictions(folder: Path) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise DataError(f"{folder} holds no Parquet file although its run is finished")
    parts = []
    for path in paths:
        try:
            schema = pq.read_schema(path)
            missing = [c for c in PREDICTION_COLUMNS if c not in schema.names]
            if missing:
                raise DataError(
                    f"{path} has no column {', '.join(missing)}; it has {', '.join(schema.names)}"
                )
            part = pq.read_table(path, columns=list(PREDICTION_COLUMNS), partitioning=None).to_pandas()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path} is damaged: {error}") from error
        rank = part["rank"].to_numpy(dtype=float)
        whole = np.isposinf(rank) | (rank == np.floor(rank))
        bad = np.flatnonzero(~((rank >= 0) & whole))  # NaN compares false, so it is caught too
        if len(bad):
            raise DataError(
                f"{path}, row {bad[0]}: rank is {rank[bad[0]]}; it must be a whole number from 0, or "
                "infinity for a miss"
            )
        if part.isna().any().any():
            raise DataError(f"{path} has an empty value in {', '.join(part.columns[part.isna().any()])}")
        parts.append(part)
    frame = pd.concat(parts, ignore_index=True).sort_values("row", kind="stable", ignore_index=True)
    twice = frame["row"][frame["row"].duplicated()]
    if len(twice):
        raise DataError(f"{folder} holds test case (row) {twice.iloc[0]} more than once")
    return frame


def _check_against_result(folder: Path, frame: pd.DataFrame, result: Mapping[str, Any], name: str) -> None:
    """result.json and the predictions must tell the same story, else one of them is not of this run."""
    stated = ((result.get("test") or {}).get(name) or {}).get("all") or {}
    n = stated.get("n")
    if n is not None and n != len(frame):
        raise DataError(
            f"{folder} holds {len(frame)} test cases, but result.json counted {n}: shards are missing"
        )
    for metric, value in stated.items():
        mean = number(value.get("mean")) if isinstance(value, dict) else None
        if mean is None or not metric.startswith("hr@"):
            continue
        found = float((frame["rank"] < int(metric.removeprefix("hr@"))).mean())
        if abs(found - mean) > 1e-6:
            raise DataError(f"{folder} gives {metric} = {found:.6f}, but result.json says {mean:.6f}")
