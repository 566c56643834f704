"""Damage to files: to any by its bytes, to known formats by their content, so that it passes first checks."""

from __future__ import annotations

import ast
import csv
import gzip
import io
import json
import os
import random
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.values import NUMBERS, TEXTS, changed, json_text, weird

_NO_SUCH_FILE = (
    ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError, SyntaxError, EOFError,
    OSError, MemoryError, zlib.error, csv.Error, pa.ArrowException,
)  # fmt: skip
"""What a damage to content raises where the file is damaged already."""
BOMB = 2 << 20
"""Bytes that a compressed bomb unpacks to."""


def damage(folder: Path, rng: random.Random) -> str:
    """Change one or two files under a folder; says what was done."""
    done = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        files = sorted(f for f in folder.rglob("*") if f.is_file() and not f.is_symlink())
        if not files:
            break
        file = rng.choice(files)
        how = _content if rng.random() < 0.65 else rng.choice((_bytes, _bytes, _bytes, _entry))
        try:
            what = how(file, rng)
        except _NO_SUCH_FILE:
            what = _bytes(file, rng)  # that damage fits no such file, or one that is damaged already
        done.append(f"{file.relative_to(folder)}: {what}")
    return "; ".join(done)


def _bytes(file: Path, rng: random.Random) -> str:
    data = bytearray(file.read_bytes())
    kind = rng.choice(
        ("flip", "flip", "cut", "cut", "empty", "zeros", "append", "repeat", "text", "noise", "number")
    )
    place = rng.randrange(len(data) + 1)
    end = min(len(data), place + rng.choice((1, 4, 16, 400)))
    if kind == "flip" and data:
        for _ in range(rng.choice((1, 1, 3, 20))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[place:]
    elif kind == "empty":
        data.clear()
    elif kind == "zeros":
        data[place:end] = bytes(end - place)
    elif kind == "append":
        data += rng.randbytes(rng.choice((1, 8, 300)))
    elif kind == "repeat":
        data[place:place] = data[place:end] * rng.choice((1, 2, 50))
    elif kind == "text":
        data[place:end] = rng.choice(TEXTS).encode("utf-8", "surrogatepass")
    elif kind == "number":
        data[place : place + 8] = rng.choice((0, 2**31, 2**63 - 1, 2**64 - 1, len(data))).to_bytes(
            8, "little"
        )
    else:
        data[place:end] = rng.randbytes(end - place)
    file.write_bytes(data)
    return f"bytes {kind} at {place}"


def _entry(file: Path, rng: random.Random) -> str:
    """The file becomes something else: nothing, a folder, a link, another file's content, a pipe."""
    kind = rng.choice(("gone", "folder", "dangling", "loop", "twin", "swap", "pipe", "outside"))
    others = [f for f in file.parent.iterdir() if f.is_file() and f != file]
    if kind == "twin" or (kind == "swap" and not others):
        shutil.copy(file, file.with_name(f"x-{file.name}"))
        return "a second one beside it"
    if kind == "swap":
        shutil.copy(rng.choice(others), file)
        return "another file's content"
    file.unlink()
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind != "gone":
        file.symlink_to({"dangling": "nowhere", "loop": file.name}.get(kind, "/proc/self/status"))
    return kind


def _content(file: Path, rng: random.Random) -> str:
    for suffix, change in _BY_SUFFIX.items():
        if file.name.endswith(suffix):
            file.write_bytes(change(file.read_bytes(), rng))
            return f"content ({suffix})"
    return _bytes(file, rng)


def _json(data: bytes, rng: random.Random) -> bytes:
    return json_text(changed(json.loads(data), rng), rng)


def _lines(data: bytes, rng: random.Random) -> bytes:
    """One record a line, JSON or Python."""
    lines = data.splitlines()
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(lines))
        kind = rng.randrange(10)
        if kind == 0:
            lines[at] = b""
        elif kind == 1:
            lines.insert(at, lines[rng.randrange(len(lines))])
        elif kind == 2:
            del lines[at]
        elif kind == 3:
            lines[at] = lines[at] + lines[at]
        elif kind == 4:
            lines[at] = rng.choice(
                (b"(" * 20_000, b"-" * 100_000 + b"1", b"9**9**9", b"__import__('os').getpid()", b"\xff\xfe")
            )
        else:
            text = lines[at].decode()
            try:
                lines[at] = json_text(changed(json.loads(text), rng), rng).replace(b"\n", b" ")
            except ValueError:
                lines[at] = repr(changed(ast.literal_eval(text), rng)).encode("utf-8", "surrogatepass")
    return b"\n".join(lines) + b"\n" * rng.randrange(2)


def _gzip_lines(data: bytes, rng: random.Random) -> bytes:
    plain = gzip.decompress(data)
    kind = rng.randrange(8)
    if kind == 0:  # a bomb: one line, or many
        return gzip.compress(rng.choice((b"a", b" ", b"\n", b"{}\n", b"[")) * BOMB, 9)[
            : rng.choice((None, -9))
        ]
    if kind == 1:  # several members, one of them damaged or not
        return data + gzip.compress(_lines(plain, rng)) + rng.choice((b"", b"tail"))
    if kind == 2:
        return gzip.compress(data)
    return gzip.compress(_lines(plain, rng))


def _table(delimiter: str) -> Callable[[bytes, random.Random], bytes]:
    def change(data: bytes, rng: random.Random) -> bytes:
        rows = list(csv.reader(io.StringIO(data.decode()), delimiter=delimiter))
        for _ in range(rng.choice((1, 1, 2, 4))):
            row = rng.choice(rows)
            at = rng.randrange(len(row))
            kind = rng.randrange(9)
            if kind <= 3:
                row[at] = rng.choice(
                    (
                        *TEXTS,
                        *map(str, NUMBERS),
                        "[1, 2]",
                        "[" * 3_000,
                        "[9**9**9, 1]",
                        "['1']",
                        "[-1, 99999]",
                    )
                )
            elif kind == 4:
                del row[at]
            elif kind == 5:
                row.insert(at, row[at])
            elif kind == 6:
                row[0], row[-1] = row[-1], row[0]
            elif kind == 7:
                rows.insert(rng.randrange(len(rows)), list(row))
            else:
                rows[0][rng.randrange(len(rows[0]))] = rng.choice((*TEXTS, *rows[0]))
        out = io.StringIO()
        csv.writer(out, delimiter=delimiter, lineterminator=rng.choice(("\n", "\n", "\r\n", "\r"))).writerows(
            rows
        )
        text = out.getvalue()
        codec = rng.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"))
        return text.encode(codec, "surrogatepass" if codec.startswith("utf") else "replace")

    return change


def _parquet(data: bytes, rng: random.Random) -> bytes:
    table = pq.read_table(io.BytesIO(data))
    kind = rng.randrange(8)
    at = rng.randrange(table.num_columns)
    if kind == 0:
        table = table.drop_columns([table.column_names[at]])
    elif kind == 1:
        names = list(table.column_names)
        names[at] = rng.choice((*names, *(t for t in TEXTS if "\ud800" not in t)))
        table = table.rename_columns(names)
    elif kind == 2:
        table = table.slice(rng.randrange(table.num_rows + 1), rng.choice((0, 1, 3, None)))
    elif kind == 3:
        table = pa.concat_tables([table, table.slice(0, rng.choice((1, table.num_rows)))])
    elif kind == 4:
        order = list(range(table.num_rows))
        rng.shuffle(order)
        table = table.take(pa.array(order, pa.int64()))
    else:
        table = table.set_column(at, table.column_names[at], _column(table, at, rng))
    out = io.BytesIO()
    pq.write_table(table, out, compression=rng.choice(("snappy", "zstd", "none")))
    return out.getvalue()


def _column(table: pa.Table, at: int, rng: random.Random) -> pa.Array:
    """A column of the same length: another type, or some values that are wrong."""
    rows, old = table.num_rows, table.column(at)
    choices: list[Callable[[], pa.Array]] = [
        lambda: pa.nulls(rows),
        lambda: pa.nulls(rows, old.type),
        lambda: pa.array(np.full(rows, rng.choice((np.nan, np.inf, 1e300, -1.5)))),
        lambda: pa.array([rng.choice([t for t in TEXTS if "\ud800" not in t]) for _ in range(rows)]),
        lambda: pa.array(
            [rng.choice([n for n in NUMBERS if isinstance(n, int) and abs(n) < 2**63])] * rows, pa.int64()
        ),
        lambda: pa.array([2**64 - 1] * rows, pa.uint64()),
        lambda: pa.array([b"\xff\x00"] * rows, pa.binary()),
        lambda: pa.array([[1]] * rows),
        lambda: pa.array([[]] * rows, pa.list_(pa.int32())),
        lambda: pa.array([[1, None]] * rows, pa.list_(pa.int64())),
        lambda: pa.array([[2**31 - 1, 2**40]] * rows, pa.list_(pa.int64())),
        lambda: pa.array([[[1], [2]]] * rows),
        lambda: pa.array([[1, 2]] * rows, pa.list_(pa.int32(), 2)),
        lambda: pa.array([{"a": 1}] * rows),
        lambda: pa.array([True] * rows),
        lambda: pa.array([0] * rows, pa.timestamp(rng.choice(("s", "ns")))),
        lambda: pa.array([2**62] * rows, pa.timestamp("s")),
        lambda: pa.array([1] * rows, pa.duration("s")),
        lambda: pa.array(range(rows), pa.int8() if rows < 128 else pa.int16()),
        lambda: pa.array(range(rows), pa.uint32()),
        lambda: pa.array(range(rows)).cast(pa.decimal128(20, 2)),
        lambda: old.combine_chunks().cast(pa.string()),
        lambda: old.combine_chunks().dictionary_encode(),
        lambda: _some_replaced(old, rng),
        lambda: _some_replaced(old, rng),
        lambda: _some_replaced(old, rng),
    ]
    return rng.choice(choices)()


def _some_replaced(column: pa.ChunkedArray, rng: random.Random) -> pa.Array:
    values = column.to_pylist()
    for _ in range(rng.choice((1, 2))):
        at = rng.randrange(len(values))
        old = values[at]
        if isinstance(old, list) and old and rng.random() < 0.7:
            old[rng.randrange(len(old))] = rng.choice((None, -1, 0, 7, 2**31 - 1))
        else:
            values[at] = rng.choice(
                (None, -1, 0, 5, 2**31 - 1, 1.5, float("nan"), float("inf"), [], "", "\x00", True)
            )
    return pa.array(values, column.type)


def _safetensors(data: bytes, rng: random.Random) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    body = bytearray(data[8 + size :])
    names = [name for name in header if name != "__metadata__"]
    kind = rng.randrange(6)
    if kind == 0:
        header = changed(header, rng)
    elif kind == 1 and names:
        header[rng.choice(names)]["shape"] = rng.choice(
            ([], [0], [1], [2**40], [2**62, 4], [-1], [3, 5], [10**30])
        )
    elif kind == 2 and names:
        header[rng.choice(names)]["dtype"] = rng.choice(
            ("F64", "I8", "BOOL", "BF16", "F8_E4M3", "I64", "U16", "X")
        )
    elif kind == 3 and names:
        header[f"{rng.choice(names)}x"] = header.pop(rng.choice(names))
    elif kind == 4 and body:
        for _ in range(rng.choice((1, 30))):
            body[rng.randrange(len(body))] = rng.randrange(256)
    elif header.get("__metadata__"):
        key = rng.choice(list(header["__metadata__"]))
        try:
            header["__metadata__"][key] = json.dumps(changed(json.loads(header["__metadata__"][key]), rng))
        except ValueError:
            header["__metadata__"][key] = str(weird(rng))
    if rng.random() < 0.5:
        _mend_checksums(header, body, names)
    text = json_text(header, rng)
    return len(text).to_bytes(8, "little") + text + bytes(body)


def _mend_checksums(header: Any, body: bytearray, names: list[str]) -> None:
    """So that wrong numbers get past the checksums of `bearray.array_files`, as in a file of a stranger."""
    about = json.loads(header["__metadata__"]["bearray"])
    for name in names:
        start, end = header[name]["data_offsets"]
        about["crc32"][name] = zlib.crc32(body[start:end])
    header["__metadata__"]["bearray"] = json.dumps(about)


_BY_SUFFIX: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".json.gz": _gzip_lines,
    ".jsonl": _lines,
    "reviews.json": _lines,
    "metadata.json": _lines,
    ".json": _json,
    ".csv": _table(","),
    ".tsv": _table("\t"),
    ".parquet": _parquet,
    ".safetensors": _safetensors,
}
