"""Read the raw Amazon dumps, however large: reviews and metadata, one record a line, gzip or plain.

Known layouts, told apart file by file from the first record: strict JSON lines (reviews of 2014, everything
of 2018) and Python literals (metadata of 2014). Of a review reviewerID, asin and unixReviewTime are kept, of
a product asin and title. Lines are read one by one and kept as numbers: 16 bytes a review, plus each user and
product id once, so memory grows with the count of reviews and not with their text.
"""

from __future__ import annotations

import ast
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bearray.data.progress import byte_progress
from bearray.data.source import Source
from bearray.errors import DataError, MissingFileError
from bearray.plain import encodable, parse_json

CHUNK = 100_000
"""Records held as Python objects at a time."""
GZIP_MAGIC = b"\x1f\x8b"
REPORT_EVERY = 20_000
LONGEST_LINE = 1 << 26
"""Characters; the longest record of the real dumps is a hundredth of it. A few kilobytes of gzip can unpack
to a line that fills the memory."""
INT64 = range(-(2**63), 2**63)

Parser = Callable[[str], Any]
_PARSE_ERRORS = (ValueError, SyntaxError, RecursionError, MemoryError, TypeError)


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, record) of every non-blank line, with a progress bar over the file's bytes.

    Raises:
        MissingFileError: no such file.
        DataError: a damaged gzip file, or a line that is neither JSON nor a Python literal, or longer than
            `LONGEST_LINE`; it names the line.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; it must be a dump file (.json or .json.gz)")
    with path.open("rb") as raw, byte_progress(f"reading {path.name}", path.stat().st_size) as advance:
        zipped = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        binary = gzip.GzipFile(fileobj=raw) if zipped else raw
        lines = io.TextIOWrapper(io.BufferedReader(binary, 1 << 20), encoding="utf-8")
        parsers: list[Parser] = [parse_json, ast.literal_eval]
        number = 0
        try:
            for number, line in enumerate(iter(lambda: lines.readline(LONGEST_LINE), ""), start=1):
                if len(line) == LONGEST_LINE:
                    raise DataError(
                        f"{path}, line {number}, is longer than {LONGEST_LINE:,} characters; it is no record"
                    )
                if not number % REPORT_EVERY:
                    advance(raw.tell())
                if line.isspace():
                    continue
                yield number, _parse(line, parsers, path, number)
            advance(path.stat().st_size)
        except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
            raise DataError(f"{path} is damaged after line {number}: {error}") from error


def _parse(line: str, parsers: list[Parser], path: Path, number: int) -> dict[str, Any]:
    """The line's record. The parser that works moves to the front: it will work for the next line, too."""
    for parser in tuple(parsers):
        try:
            record = parser(line)
        except _PARSE_ERRORS:
            continue
        if not isinstance(record, dict):
            break
        if parser is not parsers[0]:
            parsers.reverse()
        return record
    raise DataError(
        f"{path}, line {number}: {line[:60].rstrip()!r}... is neither a JSON object nor a Python dictionary"
    )


class _Codes:
    """Strings as int32 codes into one list of distinct strings, grown chunk by chunk."""

    def __init__(self) -> None:
        self._chunks: list[pa.DictionaryArray] = []

    def add(self, values: list[str]) -> None:
        self._chunks.append(pa.array(values, pa.large_string()).dictionary_encode())
        if len(self._chunks) >= 32:
            self._chunks = [self._merge()]

    def _merge(self) -> pa.DictionaryArray:
        chunks = pa.chunked_array(self._chunks).unify_dictionaries()
        return chunks.combine_chunks() if chunks.num_chunks else chunks

    def finish(self) -> tuple[NDArray[np.int32], pa.Array]:
        """([M] codes, distinct strings ascending)."""
        merged = self._merge()
        order = pc.sort_indices(merged.dictionary)
        rank = np.empty(len(order), dtype=np.int32)
        rank[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
        return rank[merged.indices.to_numpy()], merged.dictionary.take(order)


def _field(record: dict[str, Any], name: str, path: Path, line: int) -> Any:
    if record.get(name) in (None, ""):
        have = ", ".join(map(str, record))[:200] or "none"
        raise DataError(f"{path}, line {line}: no field {name!r}; it has {have}")
    return record[name]


def _id(record: dict[str, Any], name: str, path: Path, line: int) -> str:
    value = _field(record, name, path, line)
    if not isinstance(value, (str, int)) or not encodable(str(value)):
        raise DataError(f"{path}, line {line}: {name} is {str(value)[:60]!r}; it must be text or a number")
    return str(value)


def _time(value: Any, path: Path, line: int) -> int:
    try:
        seconds = int(value)
        if seconds not in INT64:
            raise ValueError("beyond 64 bits")
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(
            f"{path}, line {line}: unixReviewTime is {str(value)[:60]!r}; it must be a whole number"
        ) from error
    return seconds


def read_dump(reviews: str | Path, metadata: str | Path) -> Source:
    """Every review as an interaction, and the titles of the products that were reviewed.

    Products that the metadata does not name, or names without a title, have a null title. Of several
    metadata records of a product the first with a title counts.

    Raises:
        MissingFileError: a file does not exist.
        DataError: a damaged file, a line that cannot be parsed, a record without one of the fields.
    """
    reviews, metadata = Path(reviews), Path(metadata)
    if not metadata.is_file():  # said before the long read of the reviews
        raise MissingFileError(f"{metadata} does not exist; it must be a dump file (.json or .json.gz)")
    users, items, times = _Codes(), _Codes(), [np.empty(0, dtype=np.int64)]
    batch: tuple[list[str], list[str], list[int]] = ([], [], [])

    def flush() -> None:
        users.add(batch[0])
        items.add(batch[1])
        times.append(np.array(batch[2], dtype=np.int64))
        for column in batch:
            column.clear()

    for line, record in read_records(reviews):
        batch[0].append(_id(record, "reviewerID", reviews, line))
        batch[1].append(_id(record, "asin", reviews, line))
        batch[2].append(_time(_field(record, "unixReviewTime", reviews, line), reviews, line))
        if len(batch[0]) >= CHUNK:
            flush()
    flush()
    timestamp = np.concatenate(times)
    if not len(timestamp):
        raise DataError(f"{reviews} has no reviews")
    user_code, user_ids = users.finish()
    item_code, item_ids = items.finish()
    titles, repeated = _read_titles(metadata, item_ids)
    return Source(
        name=str(reviews),
        user_code=user_code,
        item_code=item_code,
        timestamp=timestamp,
        user_ids=user_ids,
        item_ids=item_ids,
        titles=titles,
        notes={"metadata_repeated": repeated},
    )


def _read_titles(metadata: Path, item_ids: pa.Array) -> tuple[pa.Array, int]:
    """(title of each of `item_ids` or null, records left out because an earlier one had a title)."""
    codes: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    titles: list[pa.Array] = [pa.array([], pa.large_string())]
    names: list[str] = []
    texts: list[str] = []

    def flush() -> None:
        found = pc.index_in(pa.array(names, pa.large_string()), value_set=item_ids)
        known = found.is_valid()
        codes.append(found.filter(known).to_numpy().astype(np.int64))
        titles.append(pa.array(texts, pa.large_string()).filter(known))
        names.clear()
        texts.clear()

    for line, record in read_records(metadata):
        name, title = _id(record, "asin", metadata, line), record.get("title")
        if isinstance(title, str) and title.strip():
            if not encodable(title):
                raise DataError(f"{metadata}, line {line}: title {title[:60]!r} holds half a character")
            names.append(name)
            texts.append(title)
        if len(names) >= CHUNK:
            flush()
    flush()
    code, first = np.unique(np.concatenate(codes), return_index=True)
    found = pa.concat_arrays(titles)
    place = np.full(len(item_ids), -1, dtype=np.int64)
    place[code] = first
    wanted = pa.array(place, mask=place < 0)
    return found.take(wanted).cast(pa.string()), len(found) - len(code)
