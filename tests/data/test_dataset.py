from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bearray.data import open_dataset
from bearray.errors import BearrayError, ConfigError, DataError, MissingFileError

from .conftest import LAYOUT, write_layout, write_windows

Layout = Callable[..., Path]
DAY = 86_400


def test_opens_what_is_on_disk(layout: Layout) -> None:
    data = open_dataset(layout())
    assert data.name == "small"
    assert data.items["item_id"].tolist() == [1, 2, 3, 4]
    assert data.items["title"].tolist() == ["Red Fox", "Blue Whale", "Red Panda", "Gray Wolf"]
    for split in ("train", "valid", "test"):
        frame = data.split(split)  # type: ignore[arg-type]
        rows = list(zip(frame["user_id"], frame["item_ids"], frame["timestamp"], strict=True))
        assert rows == LAYOUT[split]
    assert not any(data.notes.values())


def test_opens_a_uri(layout: Layout) -> None:
    folder = layout()
    data = open_dataset(f"file://{folder}")
    assert data.name == "small"
    assert data.content_hash == open_dataset(folder).content_hash


def test_opens_other_arrow_types(layout: Layout) -> None:
    folder = layout()
    before = open_dataset(folder).content_hash
    items = pq.read_table(folder / "items.parquet")
    wide = pa.table(
        {"title": items["title"].cast(pa.large_string()), "item_id": items["item_id"].cast(pa.int64())}
    )
    pq.write_table(wide.append_column("extra", pa.array([1.0] * 4)), folder / "items.parquet")
    train = pq.read_table(folder / "sequences_train.parquet")
    lists = train["item_ids"].cast(pa.large_list(pa.int64()))
    pq.write_table(
        train.set_column(1, "item_ids", lists), folder / "sequences_train.parquet", row_group_size=1
    )
    assert open_dataset(folder).content_hash == before


def test_unknown_split(layout: Layout) -> None:
    with pytest.raises(ConfigError, match="'dev'"):
        open_dataset(layout()).split("dev")  # type: ignore[arg-type]


# --- content hash
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"items": [(1, "Red Fox!"), *LAYOUT["items"][1:]]},
        {"train": [(10, [1, 3, 2], 100), *LAYOUT["train"][1:]]},
        {"test": [(11, [3, 2, 1], 501), *LAYOUT["test"][1:]]},
        {"valid": [(11, [2, 3, 4], 400)]},
    ],
)
def test_content_hash_sees_every_change(tmp_path: Path, changes: dict[str, object]) -> None:
    old = open_dataset(write_layout(tmp_path / "old")).content_hash
    assert open_dataset(write_layout(tmp_path / "same")).content_hash == old
    assert open_dataset(write_layout(tmp_path / "new", **changes)).content_hash != old


# --- items without a title
# ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("blank", [None, "", "  ", "&nbsp;"])
def test_untitled_items_leave(layout: Layout, blank: str | None) -> None:
    items = [(1, blank), *LAYOUT["items"][1:]]
    data = open_dataset(layout(items=items))
    assert data.items["item_id"].tolist() == [2, 3, 4]
    assert data.train["item_ids"].tolist() == [[2, 3], [2, 3]]  # shortened; as it was; (4, 1) targeted item 1
    assert data.train["user_id"].tolist() == [10, 11]
    assert data.valid["item_ids"].tolist() == [[2, 3, 4]]
    assert data.notes["untitled_items"] == 1
    assert data.notes["windows_dropped_untitled_target"] == 2  # one in train, one in test
    assert data.notes["windows_dropped_empty_history"] == 1  # (12, [1, 2]) in test
    assert data.notes["windows_shortened"] == 1


def test_untitled_items_that_empty_a_split(layout: Layout) -> None:
    with pytest.raises(DataError, match=r"sequences_valid.parquet: no window is left"):
        open_dataset(layout(items=[*LAYOUT["items"][:3], (4, "")]))


def test_strict_refuses_untitled_items(layout: Layout) -> None:
    folder = layout(items=[*LAYOUT["items"][:3], (4, "Gray Wolf"), (5, " ")])
    assert open_dataset(folder).notes["untitled_items"] == 1
    with pytest.raises(DataError, match=r"items.parquet, row 4: item 5 has the title ' '"):
        open_dataset(folder, strict=True)


def test_no_item_with_a_title(layout: Layout) -> None:
    with pytest.raises(DataError, match="none of its 4 items has a title"):
        open_dataset(layout(items=[(i, "") for i in range(1, 5)]))


def test_a_title_column_of_nulls(layout: Layout) -> None:
    folder = layout()
    pq.write_table(pa.table({"item_id": [1, 2, 3, 4], "title": pa.nulls(4)}), folder / "items.parquet")
    with pytest.raises(DataError, match="none of its 4 items has a title"):
        open_dataset(folder)


def test_shared_titles_are_counted_once_cleaned(layout: Layout) -> None:
    items = [(1, "Cat &amp; Dog"), (2, "Cat & Dog"), (3, "Cat  & Dog "), (4, "Bird")]
    assert open_dataset(layout(items=items)).notes["items_sharing_a_title"] == 3


# --- bad input: the message names file, row and value
# -------------------------------------------------------------

BAD: dict[str, tuple[dict[str, object], str]] = {
    "unknown item id": (
        {"valid": [(10, [2, 3], 350), (10, [2, 77, 4], 400)]},
        r"sequences_valid.parquet, row 1: item id 77 is not in .*items.parquet",
    ),
    "empty split": ({"test": []}, r"sequences_test.parquet: the split is empty"),
    "no history": (
        {"train": [(1, [1, 2], 1), (2, [3], 2)]},
        r"sequences_train.parquet, row 1: item_ids is \[3\]",
    ),
    "no item": ({"train": [(1, [], 1)]}, r"sequences_train.parquet, row 0: item_ids is \[\]"),
    "null item": (
        {"train": [(1, [1, 2], 1), (1, [1, None, 2], 2)]},
        r"train.parquet, row 1: .*\[1, None, 2\]",
    ),
    "null list": ({"train": [(1, None, 1)]}, r"sequences_train.parquet, row 0: item_ids is null"),
    "null user": ({"train": [(None, [1, 2], 1)]}, r"sequences_train.parquet, row 0: user_id is null"),
    "null time": ({"train": [(1, [1, 2], None)]}, r"sequences_train.parquet, row 0: timestamp is null"),
    "negative user": ({"train": [(-5, [1, 2], 1)]}, r"sequences_train.parquet, row 0: user_id is -5"),
    "repeated item": (
        {"items": [*LAYOUT["items"], (2, "Again")]},
        r"items.parquet, row 4: item_id 2 was already in row 1",
    ),
    "no items": ({"items": []}, r"items.parquet: no rows"),
    "old test": (
        {"test": [(11, [3, 2, 1], 500), (11, [3, 2, 1], 150)]},
        r"sequences_test.parquet, row 1: timestamp 150 is older than .*sequences_train.parquet \(300\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_content(layout: Layout, case: str) -> None:
    changes, message = BAD[case]
    with pytest.raises(DataError, match=message):
        open_dataset(layout(**changes))


@pytest.mark.parametrize("name", ["items", "sequences_train", "sequences_valid", "sequences_test"])
def test_missing_file(layout: Layout, name: str) -> None:
    folder = layout()
    (folder / f"{name}.parquet").unlink()
    with pytest.raises(MissingFileError, match=f"{name}.parquet does not exist") as caught:
        open_dataset(folder)
    assert isinstance(caught.value, FileNotFoundError)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="nowhere does not exist"):
        open_dataset(tmp_path / "nowhere")


@pytest.mark.parametrize("uri", ["nosuch://bucket/folder", "file://"])
def test_bad_uri(uri: str) -> None:
    with pytest.raises(BearrayError):
        open_dataset(uri)


def test_a_file_that_is_not_parquet(layout: Layout) -> None:
    folder = layout()
    (folder / "items.parquet").write_text("item_id,title\n1,a\n")
    with pytest.raises(DataError, match=r"items\.parquet cannot be read as a Parquet file"):
        open_dataset(folder)


@pytest.mark.parametrize("column", ["user_id", "item_ids", "timestamp"])
def test_missing_column(layout: Layout, column: str) -> None:
    folder = layout()
    write_windows(folder / "sequences_test.parquet", LAYOUT["test"], **{column: None})
    with pytest.raises(DataError, match=rf"sequences_test.parquet: no column '{column}'; it has "):
        open_dataset(folder)


@pytest.mark.parametrize("column", ["item_id", "title"])
def test_missing_item_column(layout: Layout, column: str) -> None:
    folder = layout()
    table = pq.read_table(folder / "items.parquet").drop_columns([column])
    pq.write_table(table, folder / "items.parquet")
    with pytest.raises(DataError, match=rf"items.parquet: no column '{column}'"):
        open_dataset(folder)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("user_id", pa.array(["a", "b", "c"])),
        ("user_id", pa.array([1.0, 2.0, 3.0])),
        ("item_ids", pa.array(["[1, 2]"] * 3)),
        ("item_ids", pa.array([["1", "2"]] * 3)),
        ("timestamp", pa.array([1.5, 2.5, 3.5])),
    ],
)
def test_wrong_column_type(layout: Layout, column: str, values: pa.Array) -> None:
    folder = layout()
    write_windows(folder / "sequences_test.parquet", LAYOUT["test"], **{column: values})
    with pytest.raises(DataError, match=rf"sequences_test.parquet: column '{column}' has type "):
        open_dataset(folder)


def test_wrong_title_type(layout: Layout) -> None:
    folder = layout()
    pq.write_table(pa.table({"item_id": [1, 2, 3, 4], "title": [1, 2, 3, 4]}), folder / "items.parquet")
    with pytest.raises(DataError, match="column 'title' has type int64; it must be a string type"):
        open_dataset(folder)


# --- order in time
# ------------------------------------------------------------------------------------------------


def days(train: list[int], valid: int, test: int, unit: int = DAY) -> dict[str, object]:
    return {
        "train": [(1, [1, 2], day * unit) for day in train],
        "valid": [(1, [1, 2], valid * unit)],
        "test": [(1, [1, 2], test * unit)],
    }


@pytest.mark.parametrize("unit", [DAY, DAY * 1_000])
def test_windows_of_one_day_may_lie_on_both_sides_of_a_cut(layout: Layout, unit: int) -> None:
    base = 15_000
    open_dataset(layout(**days([base + 1, base + 9], base + 9, base + 8, unit)))
    with pytest.raises(DataError, match=r"by more than the resolution of the timestamps"):
        open_dataset(layout(**days([base + 1, base + 9], base + 9, base + 7, unit)))


def test_timestamps_that_are_not_whole_days_may_not(layout: Layout) -> None:
    with pytest.raises(DataError, match="older than the newest window"):
        open_dataset(layout(**days([1_000_000_001, 1_000_000_009], 1_000_000_009, 1_000_000_007, 1)))


def test_validation_before_training_is_noted(layout: Layout) -> None:
    data = open_dataset(layout(valid=[(1, [1, 2], 1)]))
    assert data.notes["valid_windows_older_than_train"] == 1


# --- samples
# ------------------------------------------------------------------------------------------------------


def test_samples_are_seeded_and_in_order(layout: Layout) -> None:
    data = open_dataset(layout(train=[(user, [1, 2], user) for user in range(200)]))
    first, again, other = (data.sample("train", 50, seed) for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)
    assert first["user_id"].is_monotonic_increasing and first["user_id"].is_unique
    assert first.index.tolist() == list(range(50))
    assert len(data.sample("train", None, 0)) == len(data.sample("train", 1_000, 0)) == 200


def test_the_published_sample_is_taken(layout: Layout) -> None:
    folder = layout()
    marks = pa.array([True, False, True])
    write_windows(folder / "sequences_train.parquet", LAYOUT["train"], in_train_2=marks)
    data = open_dataset(folder)
    assert data.train["in_train_2"].tolist() == [True, False, True]
    assert all(data.sample("train", 2, seed)["user_id"].tolist() == [10, 12] for seed in range(5))
    assert len(data.sample("train", 1, 0)) == 1


def test_sample_of_nothing(layout: Layout) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        open_dataset(layout()).sample("test", 0, 0)


# --- real data
# ----------------------------------------------------------------------------------------------------

REAL = {
    "office": (2414, 15400, 1925, 1925, 6),
    "book": (6343, 31552, 3506, 4383, 18),
    "toy": (11758, 38344, 4793, 4794, 120),
    "steam100k": (3593, 43646, 5456, 5456, 0),
}


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_real_data_opens(shared: Callable[[str], Path], name: str) -> None:
    data = open_dataset(shared(name))
    counts = (
        len(data.items),
        len(data.train),
        len(data.valid),
        len(data.test),
        data.notes["items_sharing_a_title"],
    )
    assert counts == REAL[name]
    known = set(data.items["item_id"])
    assert all(known.issuperset(ids) for ids in data.train["item_ids"])


@pytest.mark.data
def test_book_has_an_item_without_a_title(shared: Callable[[str], Path]) -> None:
    data = open_dataset(shared("book"))
    assert 5746 not in set(data.items["item_id"])
    assert data.notes["untitled_items"] == 1
    assert data.notes["windows_dropped_untitled_target"] == 2
    assert data.notes["windows_dropped_empty_history"] == 0
    assert data.notes["windows_shortened"] == 30
    with pytest.raises(DataError, match="item 5746"):
        open_dataset(shared("book"), strict=True)


@pytest.mark.data
def test_published_training_samples(shared: Callable[[str], Path]) -> None:
    assert len(open_dataset(shared("office")).sample("train", 10_000, 0)) == 10_000
    assert np.isclose(len(open_dataset(shared("toy")).sample("train", 5_000, 0)), 5_000, atol=600)
