"""The files of a run folder, each checked as it is read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bearray.errors import DataError
from bearray.plain import parse_json
from bearray.report.records import number
from bearray.run_shapes import check_file

if TYPE_CHECKING:
    import pyarrow as pa

PREDICTION_COLUMNS = ("user_id", "row", "target", "items", "rank", "warm")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, of the shape that `bearray.run_shapes` has for its name; what is damaged is a DataError
    with the file's name."""
    try:
        value = parse_json(_read(path))
    except (OSError, ValueError) as error:  # ValueError: not JSON, or not UTF-8
        raise DataError(f"{path} is damaged: {error}") from error
    return check_file(value, path.name, str(path))


def _read(path: Path) -> bytes:
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise DataError(f"{path} is not a file")
    return path.read_bytes()


def read_result(path: Path) -> dict[str, Any] | None:
    """result.json, or None of a run that has not ended."""
    if not path.exists():
        return None
    result = read_json(path)
    if not result.get("status"):
        raise DataError(
            f"{path}: 'status' is {result.get('status')!r}; it must be a word such as 'finished' or 'failed'"
        )
    return result


def read_metrics(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The steps and the epochs of metrics.jsonl; of a step that was repeated, the later record."""
    records: dict[str, dict[float, dict[str, float]]] = {"step": {}, "epoch": {}}
    try:
        lines = _read(path).decode().split("\n") if path.exists() else []
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    if lines and not lines[-1]:
        del lines[-1]  # behind the last line's end
    for i, line in enumerate(lines, 1):
        try:
            record = parse_json(line)
        except ValueError as error:
            raise DataError(f"{path}, line {i}, is damaged: {error}") from error
        kind = record.get("kind") if isinstance(record, dict) else None
        key = number(record.get(kind)) if isinstance(kind, str) and kind in records else None
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


def read_predictions(folder: Path) -> pd.DataFrame:
    """All test cases of a folder of predictions, by `row`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = sorted(folder.glob("*.parquet"))
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path} is not a file")
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
            table = pq.read_table(path, columns=list(PREDICTION_COLUMNS), partitioning=None)
            part = table.select(list(PREDICTION_COLUMNS)).cast(_schema()).to_pandas()
        except (OSError, ValueError, LookupError, MemoryError, pa.ArrowException) as error:
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


def _schema() -> pa.Schema:
    """What the prediction columns are cast to; a column that cannot be is damaged."""
    import pyarrow as pa

    kinds = (pa.int64(), pa.int64(), pa.int64(), pa.list_(pa.int64()), pa.float64(), pa.bool_())
    return pa.schema(list(zip(PREDICTION_COLUMNS, kinds, strict=True)))


def check_against_result(folder: Path, frame: pd.DataFrame, result: Mapping[str, Any], name: str) -> None:
    """result.json and the predictions must tell the same story, else one of them is not of this run."""
    stated = ((result.get("test") or {}).get(name) or {}).get("all") or {}
    n = stated.get("n")
    if n is not None and n != len(frame):
        raise DataError(
            f"{folder} holds {len(frame)} test cases, but result.json counted {n}: shards are missing"
        )
    for metric, value in stated.items():
        mean = number(value.get("mean")) if isinstance(value, dict) else None
        if mean is None or not re.fullmatch(r"hr@\d{1,6}", metric):
            continue
        found = float((frame["rank"] < int(metric.removeprefix("hr@"))).mean())
        if abs(found - mean) > 1e-6:
            raise DataError(f"{folder} gives {metric} = {found:.6f}, but result.json says {mean:.6f}")
