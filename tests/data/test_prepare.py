from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bearray.data import SPLITS, open_dataset
from bearray.data.prepare import prepare
from bearray.errors import ConfigError, DataError, StorageError

Files = dict[str, Path]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """60 users with 6 to 14 of 30 items each; string ids; one item without a title, one never bought."""
    rng = np.random.default_rng(0)
    rows = [
        (f"user-{user}", f"sku-{item:03d}", int(time))
        for user in range(60)
        for item, time in zip(
            rng.choice(30, 6 + user % 9, replace=False), rng.integers(0, 10_000, 6 + user % 9), strict=True
        )
    ]
    events, items = tmp_path / "events.csv", tmp_path / "items.csv"
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).to_csv(events, index=False)
    titles = [f"Thing number {n}" if n != 7 else "" for n in range(31)]
    pd.DataFrame({"item_id": [f"sku-{n:03d}" for n in range(31)], "title": titles}).to_csv(items, index=False)
    return {"interactions": events, "items": items}


def test_string_ids_become_numbers_and_are_recorded(files: Files, tmp_path: Path) -> None:
    result = prepare(tmp_path / "out", **files)
    items = pd.read_parquet(result.path / "items.parquet")
    users = pd.read_parquet(result.path / "users.parquet")
    assert items["item_id"].tolist() == list(
        range(1, 31)
    )  # 31 without the untitled one; the unsold one stays
    assert items["source_id"].tolist() == [f"sku-{n:03d}" for n in range(31) if n != 7]
    assert users["user_id"].tolist() == list(range(1, 61))
    assert result.notes["items_without_title"] == 1
    assert result.notes["interactions_dropped_untitled"] > 0

    name = dict(zip(items["item_id"], items["source_id"], strict=True))
    user = dict(zip(users["user_id"], users["source_id"], strict=True))
    events = pd.read_csv(files["interactions"])
    bought = set(zip(events["user_id"], events["item_id"], events["timestamp"], strict=True))
    data = open_dataset(result.path, strict=True)
    for split in SPLITS:
        for row in data.split(split).itertuples():
            assert (user[row.user_id], name[row.item_ids[-1]], row.timestamp) in bought


def test_integer_ids_stay(tmp_path: Path) -> None:
    events = pd.DataFrame(
        {"user_id": np.repeat(np.arange(50, 80), 4), "item_id": np.tile([900, 5, 77, 12], 30)}
    )
    events["timestamp"] = np.arange(len(events))
    events.to_parquet(tmp_path / "e.parquet")
    pd.DataFrame({"item_id": [5, 12, 77, 900], "title": list("abcd")}).to_parquet(tmp_path / "i.parquet")
    path = prepare(tmp_path / "out", interactions=tmp_path / "e.parquet", items=tmp_path / "i.parquet").path
    data = open_dataset(path)
    assert data.items["item_id"].tolist() == [5, 12, 77, 900]
    assert data.train["item_ids"].tolist()[0] == [900, 5, 77, 12]
    assert data.train["user_id"].tolist() == list(range(50, 74))
    assert not (path / "users.parquet").exists()


def test_large_numbers_are_mapped(tmp_path: Path) -> None:
    events = pd.DataFrame(
        {"user_id": np.repeat(np.arange(20) + 2**40, 3), "item_id": np.tile([10**12, -1, 7], 20)}
    )
    events["timestamp"] = np.arange(len(events))
    events.to_parquet(tmp_path / "e.parquet")
    pd.DataFrame({"item_id": [10**12, -1, 7], "title": list("abc")}).to_parquet(tmp_path / "i.parquet")
    path = prepare(tmp_path / "out", interactions=tmp_path / "e.parquet", items=tmp_path / "i.parquet").path
    assert pd.read_parquet(path / "items.parquet").to_dict("list") == {
        "item_id": [1, 2, 3],
        "title": ["b", "c", "a"],
        "source_id": ["-1", "7", str(10**12)],
    }


def test_core_restricts_the_catalogue(files: Files, tmp_path: Path) -> None:
    plain = open_dataset(prepare(tmp_path / "plain", **files).path)
    core = open_dataset(prepare(tmp_path / "core", **files, k_core=8).path)
    same = open_dataset(prepare(tmp_path / "one", **files, k_core=1).path)
    assert len(core.items) < len(plain.items)
    assert len(same.items) == len(plain.items) - 1  # the item that nobody bought
    used = {item for split in SPLITS for ids in core.split(split)["item_ids"] for item in ids}
    assert used == set(core.items["item_id"])


def test_ratio(files: Files, tmp_path: Path) -> None:
    data = open_dataset(prepare(tmp_path / "out", **files, ratio="5:3:2").path)
    total = len(data.train) + len(data.valid) + len(data.test)
    assert (len(data.train), len(data.valid)) == (total // 2, total * 8 // 10 - total // 2)


def dump(tmp_path: Path, users: int, items: int, each: int) -> Files:
    rng = np.random.default_rng(1)
    reviews = [
        {"reviewerID": f"A{user}", "asin": f"B{item}", "unixReviewTime": int(rng.integers(0, 99)) * 86_400}
        for user in range(users)
        for item in rng.choice(items, each if user else 1, replace=False)
    ]
    (tmp_path / "r.json").write_text("".join(json.dumps(r) + "\n" for r in reviews))
    meta = [{"asin": f"B{n}", "title": f"Name {n}"} for n in range(items)] + [{"asin": "other", "title": "x"}]
    (tmp_path / "m.json").write_text("".join(repr(m) + "\n" for m in meta))
    return {"reviews": tmp_path / "r.json", "metadata": tmp_path / "m.json"}


def test_dumps_get_the_five_core_unless_told_otherwise(tmp_path: Path) -> None:
    sources = dump(tmp_path, users=40, items=12, each=6)
    core = prepare(tmp_path / "core", **sources)
    assert core.notes["interactions_dropped_k_core"] >= 1  # the user with one review
    assert len(pd.read_parquet(core.path / "users.parquet")) == 39
    off = prepare(tmp_path / "off", **sources, k_core=1)
    assert off.notes["interactions_dropped_k_core"] == 0
    assert off.notes["users_with_one_interaction"] == 1
    assert set(pd.read_parquet(off.path / "items.parquet")["source_id"]) == {f"B{n}" for n in range(12)}


# --- refusals leave nothing behind
# --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "got none of them"),
        (["interactions"], "give one of"),
        (["items"], "give one of"),
        (["interactions", "items", "reviews"], "got --reviews and --metadata and --interactions"),
        (["reviews"], "give one of"),
    ],
)
def test_one_kind_of_input(files: Files, tmp_path: Path, given: list[str], message: str) -> None:
    known = files | {"reviews": files["items"]}
    with pytest.raises(ConfigError, match=message):
        prepare(tmp_path / "out", **{name: known[name] for name in given})


@pytest.mark.parametrize("wrong", [{"k_core": 0}, {"k_core": -1}, {"ratio": "8:1"}, {"ratio": "0.5:0.1:0.1"}])
def test_wrong_settings(files: Files, tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(ConfigError, match="is"):
        prepare(tmp_path / "out", **files, **wrong)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [{"k_core": 5}, {"ratio": "7:2:1"}])
def test_a_csv_folder_is_taken_as_it_is(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(ConfigError, match="do not apply to --csv-folder"):
        prepare(tmp_path / "out", csv_folder=tmp_path, **wrong)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_refuses_to_overwrite_unless_forced(files: Files, tmp_path: Path) -> None:
    out = prepare(tmp_path / "out", **files).path
    (out / "mine.txt").write_text("keep")
    before = snapshot(out)
    with pytest.raises(DataError, match=r"out exists and is not empty; .*--force"):
        prepare(out, **files, ratio="7:2:1")
    assert snapshot(out) == before
    prepare(out, **files, ratio="7:2:1", force=True)
    assert "mine.txt" not in snapshot(out) and snapshot(out) != before


def test_an_empty_folder_may_be_filled(files: Files, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    open_dataset(prepare(tmp_path / "out", **files).path)


@pytest.mark.parametrize("force", [False, True])
def test_a_failure_leaves_no_trace(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    if force:
        prepare(tmp_path / "out", **files)
    before = snapshot(tmp_path)

    def fail(*args: object, **kwargs: object) -> None:
        raise DataError("the last file could not be checked")

    monkeypatch.setattr("bearray.data.write.open_dataset", fail)
    with pytest.raises(DataError, match="last file"):
        prepare(tmp_path / "out", **files, force=force)
    assert snapshot(tmp_path) == before
    assert sorted(os.listdir(tmp_path)) == sorted({name.split("/")[0] for name in before})


def test_errors_name_the_folder_that_was_asked_for(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> None:
        raise DataError(f"{folder}/items.parquet: bad")

    monkeypatch.setattr("bearray.data.write.open_dataset", fail)
    with pytest.raises(DataError) as caught:
        prepare(tmp_path / "out", **files)
    assert str(caught.value) == f"{tmp_path}/out/items.parquet: bad"


def test_out_is_a_file(files: Files, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a file"):
        prepare(files["items"], **files)


def test_out_cannot_be_created(files: Files) -> None:
    with pytest.raises(StorageError, match="cannot create"):
        prepare(files["items"] / "below" / "out", **files)


def test_untitled_catalogue(files: Files, tmp_path: Path) -> None:
    items = pd.read_csv(files["items"]).assign(title=" ")
    items.to_csv(files["items"], index=False)
    with pytest.raises(DataError, match="none of its 31 items has a title"):
        prepare(tmp_path / "out", **files)


def test_too_strong_a_core(files: Files, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no interaction is left"):
        prepare(tmp_path / "out", **files, k_core=500)


def test_users_with_one_interaction_only(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user_id,item_id,timestamp\n1,1,1\n2,1,2\n")
    (tmp_path / "i.csv").write_text("item_id,title\n1,One\n")
    with pytest.raises(DataError, match="no user has two interactions"):
        prepare(tmp_path / "out", interactions=tmp_path / "e.csv", items=tmp_path / "i.csv")


@pytest.mark.data
def test_toy_through_the_front_door(shared: Callable[[str], Path], tmp_path: Path) -> None:
    toy = shared("toy")
    result = prepare(
        tmp_path / "out", interactions=toy / "interactions_all.parquet", items=toy / "items.parquet"
    )
    ours, theirs = open_dataset(result.path), open_dataset(toy)
    assert ours.items.equals(theirs.items)
    cuts = {int(ours.valid["timestamp"].iloc[0]), int(ours.test["timestamp"].iloc[0])}
    for split in SPLITS:
        # items and times, not users: a few users with equal histories cannot be told apart in the shared
        # files
        rows = [
            sorted((t, i) for i, t in zip(f["item_ids"], f["timestamp"], strict=True) if t not in cuts)
            for f in (ours.split(split), theirs.split(split))
        ]
        assert rows[0] == rows[1]
        assert len(ours.split(split)) == len(theirs.split(split))
