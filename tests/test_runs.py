"""Run folders: whole files or none, and a clear error for storage that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bearray.errors import DataError, MissingFileError, StorageError
from bearray.runs import Storage, absolute, fetch_folder, join


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "run"))


def test_values_read_back(storage: Storage):
    value = {"loss": 0.1, "name": "π", "list": [1, None]}
    storage.write_json("deep/er/result.json", value)
    assert storage.read_json("deep/er/result.json") == value
    rows = [{"step": 0}, {"step": 1, "title": "a\u2028b"}]  # a line separator inside a value ends no line
    storage.write_lines("metrics.jsonl", rows)
    assert storage.read_lines("metrics.jsonl") == rows
    assert storage.read_lines("absent.jsonl") == []
    storage.write_lines("empty.jsonl", [])
    assert storage.read_lines("empty.jsonl") == []


def test_names_and_deletion(storage: Storage):
    assert storage.names() == [] and not storage.exists()
    storage.write_bytes("b", b"1")
    storage.write_bytes("a/x", b"2")
    assert storage.names() == ["a", "b"] and storage.names("a") == ["x"] and storage.exists("a/x")
    assert storage.child("a").names() == ["x"]
    storage.delete("a")
    storage.delete("b")
    storage.delete("never there")
    assert storage.names() == []


def test_a_file_is_replaced_whole(storage: Storage, monkeypatch: pytest.MonkeyPatch):
    """A writer that dies before the rename leaves the old file, not half of the new one."""
    storage.write_json("result.json", {"epoch": 1})

    def dies(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(StorageError, match=r"cannot write .*result\.json: no space left"):
        storage.write_json("result.json", {"epoch": 2})
    assert storage.read_json("result.json") == {"epoch": 1}


def test_writing_leaves_nothing_else_behind(storage: Storage):
    for number in range(3):
        storage.write_json("result.json", {"epoch": number})
    storage.check_writable()
    assert storage.names() == ["result.json"]


def test_a_reader_never_sees_half_a_file(storage: Storage):
    """One process replaces a file over and over while this one reads it."""
    import multiprocessing

    storage.write_json("state.json", {"all": [0] * 20_000})
    writer = multiprocessing.get_context("fork").Process(target=_rewrite, args=(storage.root, 40))
    writer.start()
    seen = set()
    while writer.is_alive():
        values = storage.read_json("state.json")["all"]
        assert len(values) == 20_000 and len(set(values)) == 1
        seen.add(values[0])
    writer.join()
    assert writer.exitcode == 0 and storage.read_json("state.json")["all"][0] == 39
    assert len(seen) > 1


def _rewrite(root: str, times: int) -> None:
    for number in range(times):
        Storage(root).write_json("state.json", {"all": [number] * 20_000})


@pytest.mark.parametrize("name", ["run", ""])
def test_storage_under_a_file_cannot_be_written(tmp_path: Path, name: str):
    """A path below a file is not writable for anyone, also not for root, whom permission bits do not stop."""
    (tmp_path / "file").write_text("in the way")
    storage = Storage(join(str(tmp_path / "file"), name) if name else str(tmp_path / "file"))
    with pytest.raises(StorageError, match=str(tmp_path / "file")):
        storage.check_writable()
    assert (tmp_path / "file").read_text() == "in the way"


def test_what_ray_deletes_with_a_job_is_no_storage(tmp_path: Path) -> None:
    copy = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    copy.mkdir(parents=True)
    with pytest.raises(StorageError, match=r"_ray_pkg_1/results/demo is in the copy.*absolute path or a URI"):
        Storage(str(copy / "results" / "demo")).check_writable()
    assert not list(copy.iterdir())


def test_read_only_storage_cannot_be_written():
    if not os.path.ismount("/proc"):
        pytest.skip("no /proc here")
    with pytest.raises(StorageError, match="/proc/bearray"):
        Storage("/proc/bearray").check_writable()


def test_storage_of_an_unknown_kind_is_refused():
    with pytest.raises(StorageError, match="carrier://pigeon"):
        Storage("carrier://pigeon/run").check_writable()


def test_numbers_that_json_cannot_hold_are_refused(storage: Storage):
    with pytest.raises(ValueError):
        storage.write_json("result.json", {"loss": float("nan")})
    assert not storage.exists("result.json")


def test_missing_and_damaged_files_are_named(storage: Storage):
    with pytest.raises(MissingFileError, match=r"config\.json does not exist"):
        storage.read_json("config.json")
    storage.write_bytes("config.json", b'{"run": ')
    with pytest.raises(DataError, match=r"config\.json is not valid JSON"):
        storage.read_json("config.json")
    storage.write_bytes("config.json", b"\xff\xfe{}\xff")
    with pytest.raises(DataError, match=r"config\.json is not valid JSON"):
        storage.read_json("config.json")
    storage.write_bytes("metrics.jsonl", b'{"step": 0}\n{"step"')
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 2"):
        storage.read_lines("metrics.jsonl")
    storage.write_bytes("metrics.jsonl", b'{"step": 0}\n\xff\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl"):
        storage.read_lines("metrics.jsonl")


@pytest.mark.parametrize("folder", ["run", "with space", "p%20c", "ü", "a#b?c"])
def test_uris_and_paths_are_the_same_place(tmp_path: Path, folder: str):
    local = Storage(str(tmp_path / folder))
    local.write_json("result.json", {})
    assert (tmp_path / folder / "result.json").read_text() == "{}\n"
    assert local.names() == ["result.json"] and local.read_json("result.json") == {}


def test_a_file_uri_is_a_local_folder(tmp_path: Path):
    uri = Storage(f"file://{tmp_path}/run")
    uri.check_writable()
    uri.write_json("deep/result.json", {})
    assert (tmp_path / "run" / "deep" / "result.json").read_text() == "{}\n"
    assert uri.names() == ["deep"] and uri.child("deep").read_json("result.json") == {}
    with fetch_folder(uri.child("deep").root) as folder:
        assert sorted(os.listdir(folder)) == ["result.json"]


def test_a_folder_is_copied_its_mark_last(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a.json", "deep/er/b.bin", "z.json"):
        file = tmp_path / "from" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    order: list[str] = []
    write = Storage.write_bytes

    def note(self: Storage, name: str, data: bytes) -> None:
        order.append(name)
        write(self, name, data)

    monkeypatch.setattr(Storage, "write_bytes", note)
    storage.put_folder("kept", tmp_path / "from", last="a.json")
    assert order == ["kept/deep/er/b.bin", "kept/z.json", "kept/a.json"]
    assert storage.child("kept").read_bytes("deep/er/b.bin") == b"deep/er/b.bin"


def test_fetch_folder_gives_the_folder_itself_where_it_is_local(tmp_path: Path):
    (tmp_path / "model").mkdir()
    with fetch_folder(str(tmp_path / "model")) as folder:
        assert folder == tmp_path / "model"
    with pytest.raises(MissingFileError, match="absent"), fetch_folder(str(tmp_path / "absent")):
        pass


def test_relative_paths_are_made_absolute_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    storage = Storage("run")
    monkeypatch.chdir("/")
    storage.write_json("x.json", 1)
    assert (tmp_path / "run" / "x.json").exists()
    assert absolute("s3://bucket/run") == "s3://bucket/run"
    assert absolute("~/x") == os.path.join(os.path.expanduser("~"), "x")
    assert join("s3://bucket/", "a", "b") == "s3://bucket/a/b"


def test_a_storage_that_cannot_be_looked_at_is_named(storage: Storage, monkeypatch: pytest.MonkeyPatch):
    """Whatever was to be done there; pyarrow's own error is not one of ours."""

    class Unreadable:
        type_name = "s3"

        def get_file_info(self, _: object) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Storage, "_open", lambda self, name: (Unreadable(), f"{self.root}/{name}"))
    for look in (storage.delete, storage.exists, storage.names, storage.written, storage.stamps):
        with pytest.raises(StorageError, match=rf"{storage.root}/below: Permission denied"):
            look("below")


def test_stamps_tell_what_was_written(storage: Storage):
    storage.write_json("a.json", {})
    storage.write_json("below/b.json", {})
    before = storage.stamps()
    assert set(before) == {"a.json", "below"} and storage.stamps("absent") == {}
    storage.write_json("a.json", {"more": 1})
    assert storage.stamps()["a.json"] != before["a.json"]
    assert storage.written()["a.json"] == storage.stamps()["a.json"][0] / 1e9
