from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from bearray.data import open_dataset
from bearray.data.folders import parse_ids, read_folder
from bearray.data.prepare import prepare
from bearray.errors import DataError, MissingFileError

Folder = Callable[..., Path]
TRAIN = [(user, [1 + user % 3, 4, 5], 1_000 - 10 * user) for user in range(20)]
TEST = [(3, [1, 2, 3], 2_000), (1, [2, 3, 4], 1_500)]


def write_csv(file: Path, rows: list[tuple[int, list[int], int]]) -> None:
    """As published: a list in a cell, further columns with lists of titles."""
    frame = pd.DataFrame(rows, columns=["user_id", "item_ids", "timestamp"])
    frame.insert(2, "item_titles", [[f'The "{i}", it\'s' for i in ids] for _, ids, _ in rows])
    frame.to_csv(file, index=False)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    def make(**files: list[tuple[int, list[int], int]]) -> Path:
        root = tmp_path / "Mine"
        root.mkdir(exist_ok=True)
        titles = {str(i): f"Title {i} &amp; more" for i in range(1, 8)}
        (root / "id2name4Rec.json").write_text(json.dumps(titles))
        for name, rows in ({"train": TRAIN, "test_5000": TEST} | files).items():
            write_csv(root / f"{name}.csv", rows)
        return root

    return make


def test_reads_windows_and_titles_sorted_by_time(folder: Folder, tmp_path: Path) -> None:
    root = folder(valid=[(9, [1, 2], 1_100)])
    data = open_dataset(prepare(tmp_path / "out", csv_folder=root).path)
    assert data.items["title"].tolist() == [f"Title {i} &amp; more" for i in range(1, 8)]
    assert data.train["timestamp"].tolist() == sorted(time for _, _, time in TRAIN)
    assert data.train["item_ids"].tolist() == [ids for _, ids, _ in reversed(TRAIN)]
    assert data.valid["user_id"].tolist() == [9]
    assert data.test["user_id"].tolist() == [1, 3]


def test_validation_is_the_end_of_training_where_none_is_published(folder: Folder) -> None:
    prepared = read_folder(folder())
    assert len(prepared.splits["train"]) == 18
    assert prepared.splits["valid"].timestamp.tolist() == [990, 1_000]
    assert prepared.notes["valid_windows_taken_from_train"] == 2


def test_training_samples_become_columns(folder: Folder, tmp_path: Path) -> None:
    double = [*TRAIN, TRAIN[4]]
    root = folder(train=double, train_5=[TRAIN[4], TRAIN[7], TRAIN[19], TRAIN[4], TRAIN[0]], train_21=double)
    data = open_dataset(prepare(tmp_path / "out", csv_folder=root).path)
    marks = pd.concat([data.train, data.valid]).set_index("timestamp")["in_train_5"]
    assert marks.sum() == 5
    assert sorted(marks[marks].index) == sorted(TRAIN[n][2] for n in (0, 4, 4, 7, 19))
    assert not [name for name in data.train.columns if name == "in_train_21"]
    assert len(data.sample("train", 5, 0)) == 4  # TRAIN[0] is newest: it is a validation window


def test_the_largest_numbered_file_stands_for_the_split(folder: Folder) -> None:
    root = folder(train_20=TRAIN, train_5=TRAIN[:5], valid_500=TEST[:1], valid_1=TEST[:1])
    (root / "train.csv").unlink()
    prepared = read_folder(root)
    assert len(prepared.splits["train"]) == 20
    assert prepared.splits["train"].flags["in_train_5"].sum() == 5


@pytest.mark.parametrize("cell", ["[1, 2, 3]", " [1,2,3] ", "(1, 2, 3)", "[1, 2,\n 3]", "[1, 2, 3,]"])
def test_cells(cell: str) -> None:
    assert parse_ids(cell) == [1, 2, 3]


@pytest.mark.parametrize(
    "cell", ["", "1 2 3", "[1, 'a']", "[1.5]", "[True]", "{1, 2}", "[__import__('os')]", "[" * 9_999]
)
def test_bad_cells(cell: str) -> None:
    with pytest.raises(ValueError, match="list"):
        parse_ids(cell)


def test_no_cell_is_executed(folder: Folder, tmp_path: Path) -> None:
    root, trap = folder(), tmp_path / "trap"
    (root / "train.csv").write_text(
        'user_id,item_ids,timestamp\n1,"[1, 2]",1\n'
        f"1,\"[__import__('pathlib').Path('{trap}').touch()]\",2\n"
    )
    with pytest.raises(DataError, match=r"train\.csv, row 1: item_ids .* is not a list"):
        read_folder(root)
    assert not trap.exists()


BAD = {
    "unknown item": (
        {"train": [*TRAIN, (1, [1, 99, 2], 5)]},
        r"train\.csv, row 20: item id 99 is not in",
    ),
    "no history": ({"test": [(1, [1], 2_000)]}, r"test\.csv, row 0: item_ids is \[1\]"),
    "empty split": ({"valid": []}, r"valid\.csv: the split is empty"),
    "foreign sample": (
        {"train_1": [(99, [1, 2], 3)]},
        r"train_1\.csv, row 0: this window \(user 99\) is not in",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_folders(folder: Folder, case: str) -> None:
    files, message = BAD[case]
    with pytest.raises(DataError, match=message):
        read_folder(folder(**files))


@pytest.mark.parametrize("name", ["id2name4Rec.json", "train.csv", "test_5000.csv"])
def test_missing_files(folder: Folder, name: str) -> None:
    root = folder()
    (root / name).unlink()
    with pytest.raises(MissingFileError, match=f"has no {name[:4]}"):
        read_folder(root)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="nowhere does not exist"):
        read_folder(tmp_path / "nowhere")


def test_missing_column(folder: Folder) -> None:
    root = folder()
    (root / "train.csv").write_text('user_id,items,timestamp\n1,"[1, 2]",3\n')
    with pytest.raises(
        DataError, match=r"train\.csv: no column 'item_ids'; it has user_id, items, timestamp"
    ):
        read_folder(root)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"a": "b"}', '{"1": 5}'])
def test_bad_titles(folder: Folder, text: str) -> None:
    root = folder()
    (root / "id2name4Rec.json").write_text(text)
    with pytest.raises(DataError, match="id2name4Rec"):
        read_folder(root)
