"""Names from files and listings of others never lead out of a storage; its JSON files have their shapes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bearray.config import RunConfig, override
from bearray.errors import DataError, StorageError
from bearray.runs import Storage, fetch_folder, inside
from bearray.trained import open_run
from bearray.tuning.trial import with_start

OUT = ["..", "../x", "a/../../x", "/etc/passwd", "a/..", "..\\x", "a\0b"]


@pytest.mark.parametrize("name", OUT)
def test_no_name_leads_out(tmp_path: Path, name: str) -> None:
    storage = Storage(str(tmp_path / "storage"))
    storage.write_json("a/b.json", {})
    for use in (
        storage.child,
        storage.exists,
        storage.names,
        storage.read_bytes,
        storage.read_json,
        storage.delete,
    ):
        with pytest.raises(StorageError, match="may not lead out"):
            use(name)
    with pytest.raises(StorageError, match="may not lead out"):
        storage.write_bytes(name, b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["storage"]


@pytest.mark.parametrize("name", ["a", "a/b.json", "...", "a..b", ".hidden", "ü", "a b"])
def test_other_names_are_left_alone(name: str) -> None:
    assert inside(name) == name


def test_a_listing_cannot_write_outside_the_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Object stores take "../../x" for the name of an object like any other."""
    monkeypatch.setattr(Storage, "files", lambda self, *, without=(): ["../../escaped"])
    monkeypatch.setattr(Storage, "exists", lambda self, name="": True)
    with pytest.raises(StorageError, match="may not lead out"), fetch_folder("mock://bucket/sweep"):
        pass


def test_a_run_to_start_from_is_one_beside_it(tmp_path: Path) -> None:
    config = override(RunConfig(), {"train.init_adapter": "run:../../elsewhere"})
    with pytest.raises(StorageError, match="may not lead out"):
        with_start(config, Storage(str(tmp_path / "runs" / "bear-1")))


def write_run(folder: Path, **result: Any) -> Storage:
    folder.mkdir(parents=True)
    about = {"run": {}, "method": "SFT", "dataset": "d", "base_model": "b", "data_hash": "h"}
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "result.json").write_text(json.dumps({"status": "finished", **result}))
    return Storage(str(folder))


@pytest.mark.parametrize("name", ["x/..", "..", "/", "."])
def test_a_checkpoint_is_a_folder_of_its_run(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="checkpoint is"):
        open_run(write_run(tmp_path / "run", checkpoint=name))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"checkpoint": 5}, "result.json: checkpoint is 5; it must be text or null"),
        ({"test": 5}, "result.json: test is 5; it must be an object"),
        ({"test": {"trie": {"all": {"n": -1}}}}, "test.trie.all.n is -1"),
        ({"valid": {"ndcg@10": "x"}}, "valid.ndcg@10 is 'x'; it must be a number or null"),
        ({"seconds": []}, "seconds is"),
    ],
)
def test_files_of_another_shape_are_named(tmp_path: Path, result: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message.replace(".", r"\.")):
        open_run(write_run(tmp_path / "run", **result))


def test_a_pipe_in_a_storage_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "result.json")
    with pytest.raises(StorageError, match="is not a file"):
        Storage(str(tmp_path)).read_json("result.json")
