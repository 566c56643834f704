"""What objectives and decoders cost, from STORAGE/efficiency/efficiency.json (`bearray bench objectives`),
and beside it how well the runs of the same storage recommend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bearray.efficiency.results import FILE, FOLDER, read
from bearray.efficiency.statistics import Row, decoding_rows, training_rows
from bearray.errors import DataError
from bearray.report.cells import Table
from bearray.report.efficiency_facts import doubts, facts
from bearray.report.efficiency_points import Point, points_of
from bearray.runs import Storage


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """One benchmark."""

    dataset: str
    base_model: str
    base_model_kind: str
    finished: bool
    training: tuple[Row, ...]
    decoding: tuple[Row, ...]
    points: tuple[Point, ...]
    """Runs of the same data and base model whose objective was timed."""
    facts: tuple[str, ...]
    """What was measured, how often and on which machine, as sentences."""
    notes: tuple[str, ...]


def read_efficiency(storage: Path, tables: Sequence[Table] = ()) -> Efficiency | None:
    """The benchmark in a storage folder; None where there is none.

    Args:
        storage: a local folder.
        tables: of the runs in it, as `bearray.report.tables.build_tables` returns.

    Raises:
        DataError: efficiency.json is damaged, or of another schema.
    """
    path = storage / FOLDER / FILE
    if not path.exists():
        return None
    content = read(Storage(str(path.parent)))
    try:
        return parse(content, tables)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def parse(content: Mapping[str, Any], tables: Sequence[Table] = ()) -> Efficiency:
    """efficiency.json as rows, points and sentences."""
    measured = {
        name: rows(content[name]) if content[name] else []
        for name, rows in (("training", training_rows), ("decoding", decoding_rows))
    }
    points, differing = points_of(content, measured["training"], tables)
    return Efficiency(
        dataset=str(content["dataset"]),
        base_model=str(content["base_model"]),
        base_model_kind=str(content["base_model_kind"]),
        finished=content["finished"] is not None,
        training=tuple(measured["training"]),
        decoding=tuple(measured["decoding"]),
        points=tuple(points),
        facts=tuple(facts(content)),
        notes=(*(str(note) for note in content["notes"]), *doubts(content, measured), *differing),
    )
