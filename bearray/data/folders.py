"""Read the CSV folders in which MSL and BEAR publish their data.

    id2name4Rec.json              {"1": "title", ...} (or id2name.json)
    train.csv, train_10000.csv    user_id, item_ids (a list in a cell: "[1, 2, 3]", the last is the target),
    timestamp valid.csv, valid_5000.csv     the same; often not published
    test.csv, test_5000.csv       the same

A split is read from the file without a number, else from the one with the largest; training files with a
smaller number are samples of it and become columns (`in_train_10000`). Without a validation file the last 10
% of the training windows, by time, are the validation split. Other columns and files are ignored.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bearray.data.checks import check_known, read_ints
from bearray.data.dataset import SPLITS, Split
from bearray.data.source import Prepared
from bearray.data.tables import read_columns
from bearray.data.windows import Int64, Windows
from bearray.data.write import items_table
from bearray.errors import DataError, MissingFileError
from bearray.plain import parse_json

TITLE_FILES = ("id2name4Rec.json", "id2name.json")
_PLAIN_LIST = re.compile(r"\s*\[\s*\d+(?:\s*,\s*\d+)*\s*\]\s*")


def read_folder(folder: str | Path) -> Prepared:
    """A published CSV folder as a data set.

    Raises:
        MissingFileError: the folder, the titles, the training or the test file does not exist.
        DataError: a cell that is not a list of item ids, an unknown item id, an empty file, a training sample
            that is not part of the training file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFileError(
            f"{folder} does not exist; it must be a folder with {TITLE_FILES[0]} and CSV files"
        )
    titles_file = next((folder / name for name in TITLE_FILES if (folder / name).is_file()), None)
    if titles_file is None:
        raise MissingFileError(f"{folder} has no {' or '.join(TITLE_FILES)}; it is where the titles are")
    ids, titles = _read_titles(titles_file)

    notes: Counter[str] = Counter()
    splits: dict[Split, Windows] = {}
    for split in SPLITS:
        files = _files(folder, split)
        if not files:
            continue
        windows = {file: _read_windows(file) for file in files}
        main = next((f for f in files if f.stem == split), max(files, key=lambda f: len(windows[f])))
        check_known(windows[main], ids, str(titles_file))
        if split == "train":
            samples = {f: w for f, w in windows.items() if f != main and len(w) < len(windows[main])}
            windows[main].flags.update(
                {f"in_{f.stem}": _part_of(sample, windows[main]) for f, sample in samples.items()}
            )
        splits[split] = _by_time(windows[main])
        notes[f"{split}_windows_read"] = len(windows[main])
    for split in ("train", "test"):
        if split not in splits:
            raise MissingFileError(f"{folder} has no {split}.csv (or {split}_N.csv)")
    if "valid" not in splits:
        train = splits["train"]
        rows = np.arange(len(train))
        first = len(rows) * 9 // 10
        splits |= {"train": train.take(rows[:first]), "valid": train.take(rows[first:])}
        notes["valid_windows_taken_from_train"] = len(rows) - first
    return Prepared(items=items_table(ids, titles), splits=splits, users=None, notes=dict(notes))


def _files(folder: Path, split: str) -> list[Path]:
    """train.csv and train_N.csv."""
    return sorted(f for f in folder.iterdir() if re.fullmatch(rf"{split}(_\d+)?\.csv", f.name))


def _read_titles(file: Path) -> tuple[Int64, list[str | None]]:
    try:
        names: Any = parse_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(names, dict) or not names:
        raise DataError(f"{file} must hold one JSON object of item id -> title, with at least one entry")
    ids: list[int] = []
    titles: list[str | None] = []
    for key, title in names.items():
        if not re.fullmatch(r"\d{1,9}", key) or not (title is None or isinstance(title, str)):
            shown = f"{key[:60]!r}: {str(title)[:60]!r}"
            raise DataError(f"{file}: entry {shown} is not an item id and a title")
        ids.append(int(key))
        titles.append(title)
    order = np.argsort(ids, kind="stable").tolist()
    return np.array([ids[i] for i in order], dtype=np.int64), [titles[i] for i in order]


def parse_ids(cell: str) -> list[int]:
    """The item ids in a cell like "[1, 2, 3]": JSON or a Python list, read without running anything.

    Raises:
        ValueError: it is not a list of integers.
    """
    if _PLAIN_LIST.fullmatch(cell):
        ids: list[int] = json.loads(cell)
        if max(ids) < 2**63:
            return ids
    try:
        value = ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise ValueError(f"{cell[:60]!r} is not a list") from error
    if not isinstance(value, (list, tuple)) or not all(type(item) is int for item in value):
        raise ValueError(f"{cell[:60]!r} is not a list of integers")
    if any(abs(item) >= 2**63 for item in value):
        raise ValueError(f"{cell[:60]!r} holds a number beyond 64 bits")
    return list(value)


def _read_windows(file: Path) -> Windows:
    table = read_columns(file, {"user_id": None, "item_ids": pa.string(), "timestamp": None})
    if not table.num_rows:
        raise DataError(f"{file}: the split is empty; it needs at least one window")
    lists: list[list[int]] = []
    for row, cell in enumerate(table["item_ids"].to_pylist()):
        try:
            ids = parse_ids(cell or "")
        except ValueError as error:
            raise DataError(f"{file}, row {row}: item_ids {error}") from error
        if len(ids) < 2:
            raise DataError(f"{file}, row {row}: item_ids is {ids}; a window is a history and the target")
        lists.append(ids)
    return Windows(
        user_id=read_ints(table, "user_id", str(file)),
        offsets=np.concatenate(([0], np.cumsum([len(ids) for ids in lists]))),
        items=np.array([item for ids in lists for item in ids], dtype=np.int64),
        timestamp=read_ints(table, "timestamp", str(file), int32=False),
        file=str(file),
    )


def _by_time(windows: Windows) -> Windows:
    return windows.take(np.argsort(windows.timestamp, kind="stable"))


def _keys(windows: Windows) -> list[tuple[int, int, bytes]]:
    parts = np.split(windows.items, windows.offsets[1:-1])
    rows = zip(windows.user_id.tolist(), windows.timestamp.tolist(), parts, strict=True)
    return [(user, time, part.tobytes()) for user, time, part in rows]


def _part_of(sample: Windows, whole: Windows) -> np.ndarray:
    """[W] which windows of `whole` the sample holds; equal windows are matched one to one."""
    places: dict[tuple[int, int, bytes], list[int]] = defaultdict(list)
    for row, key in enumerate(_keys(whole)):
        places[key].append(row)
    mark = np.zeros(len(whole), dtype=bool)
    for row, key in enumerate(_keys(sample)):
        if not places[key]:
            raise DataError(f"{sample.file}, row {row}: this window (user {key[0]}) is not in {whole.file}")
        mark[places[key].pop(0)] = True
    return mark
