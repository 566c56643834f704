"""Many histories from a file: CSV, or JSON lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bearray.data.storage import locate, require_file
from bearray.errors import DataError, StorageError
from bearray.plain import parse_json

COLUMN = "history"
USER = "user"


@dataclass(frozen=True)
class Asked:
    """A history as it was given."""

    history: str | list[Any]
    """One text, with semicolons between titles, or a list."""
    user: str | None = None
    """Whose it is, where the file says so."""
    where: str = "--history"
    """For messages."""


def read_histories(path: Path) -> list[Asked]:
    """The histories of a file: `*.csv` with a column `history` (titles separated by semicolons) and perhaps
    `user`; or `*.jsonl` (`*.ndjson`), an object a line with the same fields, `history` a text or a list of
    titles.

    Raises:
        MissingFileError: there is no such file.
        DataError: another ending, no plain file, or a row without a history; the message names file and line.
    """
    readers = {".csv": _csv, ".jsonl": _json_lines, ".ndjson": _json_lines}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: histories are read from files that end in {', '.join(readers)}")
    require_file(*locate(path), path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error}") from error
    found = list(reader(path, text))
    if not found:
        raise DataError(f"{path} holds no history")
    return found


def _csv(path: Path, text: str) -> Iterator[Asked]:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        if COLUMN not in (rows.fieldnames or ()):
            raise DataError(
                f"{path} has no column {COLUMN!r}; it has {', '.join(rows.fieldnames or ['none'])}"
            )
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            history = row[COLUMN]
            if not (history or "").strip():
                raise DataError(f"{where}: the history is empty")
            yield Asked(history, row.get(USER) or None, where)
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: {error}") from error


def _json_lines(path: Path, text: str) -> Iterator[Asked]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = parse_json(line)
        except ValueError as error:
            raise DataError(f"{where} is not valid JSON: {error}") from error
        history = row.get(COLUMN) if isinstance(row, dict) else None
        if not isinstance(history, (str, list)) or not history:
            raise DataError(f'{where} has no history; it must be like {{"{COLUMN}": ["first", "second"]}}')
        user = row.get(USER)
        yield Asked(history, None if user is None else str(user), where)
