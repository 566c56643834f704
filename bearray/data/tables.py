"""Read plain tables: (user_id, item_id, timestamp) and (item_id, title), as CSV or Parquet."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from bearray.data.checks import as_int64
from bearray.data.source import Source
from bearray.data.storage import check_names, locate, read_parquet, require_file
from bearray.errors import DataError

CSV_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
PARQUET_SUFFIXES = (".parquet", ".pq")


def read_columns(path: str | Path, columns: dict[str, pa.DataType | None]) -> pa.Table:
    """Some columns of a CSV or Parquet file; others are ignored.

    Args:
        path: a file or URI; the ending says what it is (.csv, .tsv, each also with .gz; .parquet, .pq).
        columns: name -> type to read a CSV column as (None: whatever it looks like).

    Raises:
        MissingFileError: no such file.
        DataError: another ending, a file that cannot be parsed, a missing column.
    """
    system, inner = locate(path)
    require_file(system, inner, path)
    lower = inner.lower()
    if lower.endswith(PARQUET_SUFFIXES):
        table = read_parquet(system, inner)
    elif lower.endswith(CSV_SUFFIXES):
        delimiter = "\t" if ".tsv" in lower else ","
        try:
            with system.open_input_stream(
                inner, compression="gzip" if lower.endswith(".gz") else None
            ) as stream:
                table = pacsv.read_csv(
                    stream,
                    parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                    convert_options=pacsv.ConvertOptions(
                        column_types={name: kind for name, kind in columns.items() if kind is not None}
                    ),
                )
                check_names(table)
        except (pa.ArrowException, ValueError, LookupError, MemoryError, OSError) as error:
            raise DataError(f"{path} cannot be read as CSV: {error}") from error
    else:
        raise DataError(f"{path} must end in one of {', '.join(CSV_SUFFIXES + PARQUET_SUFFIXES)}")
    for name in columns:
        if name not in table.column_names:
            raise DataError(f"{path}: no column {name!r}; it has {', '.join(table.column_names) or 'none'}")
        if table.column_names.count(name) > 1:
            raise DataError(f"{path}: column {name!r} is there more than once")
    return table.select(list(columns))


def read_tables(interactions: str | Path, items: str | Path) -> Source:
    """Interactions (user_id, item_id, timestamp) and titles (item_id, title).

    Ids may be integers or strings. Timestamps are integers of any unit, or dates and times (taken as seconds
    since 1970 in UTC). Rows may come in any order; interactions of a user at one time keep theirs.

    Raises:
        MissingFileError: a file does not exist.
        DataError: a missing or mistyped column, a null, a repeated item id, an interaction with an item that
            is not in `items`.
    """
    table = read_columns(interactions, {"user_id": pa.string(), "item_id": pa.string(), "timestamp": None})
    catalogue = read_columns(items, {"item_id": pa.string(), "title": pa.string()})
    for file, part in ((interactions, table), (items, catalogue)):
        if not part.num_rows:
            raise DataError(f"{file} has no rows")
    users = _ids([table["user_id"]], [str(interactions)], "user_id")[0]
    seen, known = _ids([table["item_id"], catalogue["item_id"]], [str(interactions), str(items)], "item_id")
    user_ids = pc.unique(users)
    user_ids = user_ids.take(pc.sort_indices(user_ids))
    order = pc.sort_indices(known)
    item_ids = known.take(order)
    if pc.count_distinct(item_ids).as_py() < len(item_ids):
        repeated = pc.value_counts(known).to_pylist()
        twice = next(entry["values"] for entry in repeated if entry["counts"] > 1)
        row = np.flatnonzero(pc.equal(known, twice).to_numpy(zero_copy_only=False))[1]
        raise DataError(f"{items}, row {row}: item_id {twice!r} is there twice; ids must be distinct")
    codes = pc.index_in(seen, value_set=item_ids)
    if codes.null_count:
        row = int(np.argmax(codes.is_null().to_numpy(zero_copy_only=False)))
        raise DataError(
            f"{interactions}, row {row}: item_id {seen[row].as_py()!r} is not in {items} "
            f"({codes.null_count} such rows)"
        )
    titles = catalogue["title"].combine_chunks()
    if not pa.types.is_null(titles.type) and not _is_text(titles.type):
        raise DataError(f"{items}: column 'title' has type {titles.type}; it must be text")
    return Source(
        name=str(interactions),
        user_code=pc.index_in(users, value_set=user_ids).to_numpy().astype(np.int32),
        item_code=codes.to_numpy().astype(np.int32),
        timestamp=_times(table["timestamp"], str(interactions)),
        user_ids=user_ids,
        item_ids=item_ids,
        titles=titles.cast(pa.string()).take(order),
    )


def _is_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(
        pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner)
    )


def _ids(columns: list[pa.ChunkedArray], files: list[str], name: str) -> list[pa.Array]:
    """Columns that hold the same kind of id, as int64 if all of them are plain numbers, else as strings."""
    for column, file in zip(columns, files, strict=True):
        if not (pa.types.is_integer(column.type) or _is_text(column.type)):
            raise DataError(f"{file}: column {name!r} has type {column.type}; it must be an integer or text")
        empty = (
            column.is_null()
            if pa.types.is_integer(column.type)
            else pc.or_kleene(column.is_null(), pc.equal(pc.binary_length(column.cast(pa.string())), 0))
        )
        mask = empty.to_numpy()
        if mask.any():
            raise DataError(f"{file}, row {int(np.argmax(mask))}: {name} is empty; every row needs one")
    if not all(pa.types.is_integer(column.type) for column in columns):
        columns = [column.cast(pa.string()) for column in columns]
        # "007" is an id of its own, not the number 7
        plain = r"^(0|[1-9][0-9]{0,17})$"
        if all(pc.all(pc.match_substring_regex(column, plain)).as_py() for column in columns):
            columns = [column.cast(pa.int64()) for column in columns]
    else:
        columns = [as_int64(column, name, file) for column, file in zip(columns, files, strict=True)]
    return [column.combine_chunks() for column in columns]


def _times(column: pa.ChunkedArray, file: str) -> np.ndarray:
    kind = column.type
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy()))
        raise DataError(f"{file}, row {row}: timestamp is empty; every row needs one")
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return np.asarray(column.cast(pa.timestamp("s"), safe=False).cast(pa.int64()).to_numpy())
    if pa.types.is_floating(kind):
        values = column.to_numpy()
        wrong = ~np.isfinite(values) | (values != np.floor(values))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(f"{file}, row {row}: timestamp is {values[row]!r}; it must be a whole number")
        return values.astype(np.int64)
    if not pa.types.is_integer(kind):
        value = next((v for v in column.to_pylist() if not re.fullmatch(r"-?\d+", str(v))), None)
        raise DataError(
            f"{file}: column 'timestamp' has type {kind} (such as {value!r}); "
            "it must be whole numbers or dates"
        )
    return np.asarray(as_int64(column, "timestamp", file).to_numpy())
