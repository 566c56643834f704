"""What a data set's files must hold; every error names file, row and value."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bearray.data.windows import Int64, Windows
from bearray.errors import DataError

INT32_MAX = int(np.iinfo(np.int32).max)
DAY_SECONDS = 86_400


def _column(table: pa.Table, name: str, file: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise DataError(f"{file}: no column {name!r}; it has {', '.join(table.column_names) or 'none'}")
    if table.column_names.count(name) > 1:
        raise DataError(f"{file}: column {name!r} is there more than once")
    return table[name]


def _first(mask: NDArray[np.bool_]) -> int:
    return int(np.argmax(mask))


def _no_null(column: pa.ChunkedArray, name: str, file: str) -> None:
    if column.null_count:
        row = _first(column.is_null().to_numpy())
        raise DataError(f"{file}, row {row}: {name} is null; every row needs one")


def as_int64(column: pa.ChunkedArray | pa.Array, name: str, file: str) -> pa.ChunkedArray | pa.Array:
    """An integer column as int64.

    Raises:
        DataError: it holds an unsigned number that is larger.
    """
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise DataError(f"{file}: column {name!r} holds a number beyond 64 bits: {error}") from error


def _ints(column: pa.ChunkedArray | pa.Array, name: str, file: str, *, int32: bool) -> Int64:
    values = as_int64(column, name, file).to_numpy()
    if int32 and len(values):
        wrong = (values < 0) | (values > INT32_MAX)
        if wrong.any():
            row = _first(wrong)
            raise DataError(
                f"{file}, row {row}: {name} is {values[row]}; it must be in 0 .. {INT32_MAX} (int32)"
            )
    return np.asarray(values, dtype=np.int64)


def read_ints(table: pa.Table, name: str, file: str, *, int32: bool = True) -> Int64:
    """An integer column without nulls.

    Raises:
        DataError: the column is missing, of another type, has a null, or a value outside 0 .. 2^31 - 1.
    """
    column = _column(table, name, file)
    if not pa.types.is_integer(column.type):
        raise DataError(f"{file}: column {name!r} has type {column.type}; it must be an integer type")
    _no_null(column, name, file)
    return _ints(column, name, file, int32=int32)


def read_titles(table: pa.Table, file: str) -> list[str | None]:
    """The title column; a null is a missing title."""
    column = _column(table, "title", file)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_null(kind):
        return [None] * len(column)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise DataError(f"{file}: column 'title' has type {column.type}; it must be a string type")
    return column.to_pylist()


def read_items(table: pa.Table, file: str) -> tuple[Int64, list[str | None]]:
    """Item ids (distinct) and their titles.

    Raises:
        DataError: a missing or mistyped column, a null or repeated id, no row at all.
    """
    ids, titles = read_ints(table, "item_id", file), read_titles(table, file)
    if not len(ids):
        raise DataError(f"{file}: no rows; a data set needs at least one item")
    order = np.argsort(ids, kind="stable")
    same = ids[order][1:] == ids[order][:-1]
    if same.any():
        first, second = sorted(order[_first(same) : _first(same) + 2].tolist())
        raise DataError(
            f"{file}, row {second}: item_id {ids[second]} was already in row {first}; ids must be distinct"
        )
    return ids, titles


def read_windows(table: pa.Table, file: str) -> Windows:
    """The windows of one split.

    Raises:
        DataError: a missing or mistyped column, a null, an empty split, a window without a history item.
    """
    users = read_ints(table, "user_id", file)
    lists = _column(table, "item_ids", file)
    kind = lists.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not (is_list and pa.types.is_integer(kind.value_type)):
        raise DataError(f"{file}: column 'item_ids' has type {kind}; it must be a list of integers")
    times = read_ints(table, "timestamp", file, int32=False)
    if not len(users):
        raise DataError(f"{file}: the split is empty; it needs at least one window")
    _no_null(lists, "item_ids", file)
    lengths = pc.list_value_length(lists).to_numpy().astype(np.int64)
    short = lengths < 2
    if short.any():
        row = _first(short)
        raise DataError(
            f"{file}, row {row}: item_ids is {lists[row].as_py()}; "
            "a window is at least one history item and the target"
        )
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    flat = pc.list_flatten(lists)
    if flat.null_count:
        row = int(np.searchsorted(offsets, _first(flat.is_null().to_numpy()), side="right")) - 1
        raise DataError(f"{file}, row {row}: item_ids is {lists[row].as_py()}; an item id is null")
    flags = {
        name: np.asarray(table[name].fill_null(False).to_numpy(), dtype=bool)
        for name in table.column_names
        if pa.types.is_boolean(table[name].type)
    }
    return Windows(users, offsets, _ints(flat, "item_ids", file, int32=False), times, flags, file)


def check_known(windows: Windows, item_ids: Int64, items_file: str) -> None:
    """Every item of every window is in the catalogue.

    Raises:
        DataError: it is not.
    """
    unknown = ~np.isin(windows.items, item_ids)
    if unknown.any():
        position = _first(unknown)
        row = windows.row_of(position)
        raise DataError(
            f"{windows.file}, row {row}: item id {windows.items[position]} is not in {items_file} "
            f"({int(unknown.sum())} such ids in this file)"
        )


def timestamp_resolution(*times: Int64) -> int:
    """One day where all timestamps are whole days apart, else one tick.

    Amazon reviews carry the day only, so many windows share a time and a chronological cut runs through a
    day. The size of the numbers tells seconds from milli-, micro- and nanoseconds.
    """
    flat = np.concatenate(times)
    largest = int(np.abs(flat).max(initial=0))
    ticks = next(
        (t for bound, t in ((10**17, 10**9), (10**14, 10**6), (10**11, 10**3)) if largest >= bound), 1
    )
    day = DAY_SECONDS * ticks
    return day if len(flat) and not ((flat - flat.min()) % day).any() else 1


def check_order(train: Windows, later: Windows, resolution: int) -> None:
    """No window of `later` is older than the newest training window by more than the resolution.

    Raises:
        DataError: one is: the model would be trained on the future of what it is tested on.
    """
    newest = int(train.timestamp.max())
    old = later.timestamp < newest - resolution
    if old.any():
        row = _first(old)
        raise DataError(
            f"{later.file}, row {row}: timestamp {later.timestamp[row]} is older than the newest window of "
            f"{train.file} ({newest}) by more than the resolution of the timestamps ({resolution}); "
            f"{int(old.sum())} such rows. The splits must be cut by time"
        )
