"""Run folders as a command finds them, also where they were moved to."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from bearray.config import RunConfig, override, to_dict
from bearray.data import open_dataset
from bearray.errors import BearrayError, DataError, MissingFileError, ModelError, ResumeError, StorageError
from bearray.runs import Storage
from bearray.trained import model_identity, open_run, relocated, trained_runs


def write_run(
    folder: Path,
    *,
    result: dict[str, Any] | None = None,
    data: str = "d",
    base: str = "llama-3.2-3b",
    **about: Any,
) -> Path:
    """A run whose checkpoint is there; `result` None: its training has not ended."""
    checkpoint = folder / "checkpoints" / "checkpoint_2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text("{}")
    run = override(RunConfig(), {"data.path": data, "model.base": base, "decoding.beam_width": 7})
    config = {"run": to_dict(run), "method": "MSL", "dataset": "demo", "base_model": "local:tiny"}
    (folder / "config.json").write_text(json.dumps({**config, "data_hash": "abc", **about}))
    if result is not None:
        ended = {"status": "finished", "checkpoint": str(checkpoint), "chosen": True, **result}
        (folder / "result.json").write_text(json.dumps(ended))
    return folder


def test_a_run_knows_its_settings_and_checkpoint(tmp_path: Path) -> None:
    run = open_run(Storage(str(write_run(tmp_path / "msl-1", result={}))))
    assert (run.name, run.method, run.dataset, run.base_model) == ("msl-1", "MSL", "demo", "local:tiny")
    assert run.config.decoding.beam_width == 7 and run.data_hash == "abc"
    assert run.checkpoint == str(tmp_path / "msl-1" / "checkpoints" / "checkpoint_2")


def test_a_checkpoint_is_found_where_the_folder_was_moved(tmp_path: Path) -> None:
    write_run(tmp_path / "old" / "runs" / "msl-1", result={})
    shutil.move(tmp_path / "old", tmp_path / "new")
    (run,) = trained_runs([str(tmp_path / "new")])
    assert run.checkpoint == str(tmp_path / "new" / "runs" / "msl-1" / "checkpoints" / "checkpoint_2")


def test_a_checkpoint_is_opened_only_within_its_run(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", result={})
    shutil.copytree(old, tmp_path / "copy")
    assert open_run(Storage(str(tmp_path / "copy"))).checkpoint.startswith(str(tmp_path / "copy"))
    shutil.rmtree(tmp_path / "copy" / "checkpoints")
    with pytest.raises(MissingFileError, match=r"no .*copy/checkpoints/checkpoint_2.* copy it there"):
        open_run(Storage(str(tmp_path / "copy")))  # although old/checkpoints/checkpoint_2 exists


@pytest.mark.parametrize("address", ["/usr/share", "file:///usr/share", "s3://a-strangers/bucket"])
def test_a_checkpoint_elsewhere_is_not_asked_for(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run", result={"checkpoint": address})
    asked, opening = [], Storage._open
    monkeypatch.setattr(Storage, "_open", lambda self, name: asked.append(self.root) or opening(self, name))
    with pytest.raises(MissingFileError, match=re.escape(f"written as {address!r}")):
        open_run(Storage(str(run)))
    assert asked and all(place.startswith(str(run)) for place in asked)


def test_a_run_that_decodes_another_has_its_checkpoint_wherever_the_storage_is(tmp_path: Path) -> None:
    """As `bearray.evaluation.redecode` writes it."""
    trained = write_run(tmp_path / "old" / "runs" / "sft-1", result={})
    there = {"checkpoint": str(trained / "checkpoints" / "checkpoint_2")}
    for name, other in (("d3-1", "sft-1"), ("d3-2", "../../old/runs/sft-1"), ("d3-3", None)):
        decoded = write_run(tmp_path / "old" / "decoded" / name, result=there, decoded_from=other)
        shutil.rmtree(decoded / "checkpoints")
    shutil.move(tmp_path / "old", tmp_path / "new")
    found = open_run(Storage(str(tmp_path / "new" / "decoded" / "d3-1"))).checkpoint
    assert found == str(tmp_path / "new" / "runs" / "sft-1" / "checkpoints" / "checkpoint_2")
    with pytest.raises(StorageError, match="may not lead out"):
        open_run(Storage(str(tmp_path / "new" / "decoded" / "d3-2")))
    with pytest.raises(MissingFileError, match="is gone"):
        open_run(Storage(str(tmp_path / "new" / "decoded" / "d3-3")))


def test_a_checkpoint_that_is_gone_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "msl-1", result={})
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(MissingFileError, match=r"checkpoint of .*msl-1 is gone: there is no .*checkpoint_2"):
        open_run(Storage(str(run)))
    other = write_run(tmp_path / "msl-2", result={"checkpoint": None})
    with pytest.raises(MissingFileError, match=r"msl-2/result\.json names no checkpoint"):
        open_run(Storage(str(other)))


def test_a_storage_stands_for_its_chosen_runs_and_each_counts_once(tmp_path: Path) -> None:
    runs = tmp_path / "sweep" / "runs"
    for name in ("bear-1", "sft-1"):
        write_run(runs / name, result={})
    write_run(runs / "bear-2", result={"chosen": False})
    write_run(runs / "bear-3")
    write_run(runs / "sasrec-1", result={"checkpoint": None})  # a baseline searches no beams
    write_run(runs / "bear-4", result={"status": "failed", "chosen": False})
    write_run(runs / "bear-1" / "checkpoints" / "nested", result={})  # is no run of the sweep
    assert [run.name for run in trained_runs([str(tmp_path)])] == ["bear-1", "sft-1"]
    both = [str(runs / "sft-1"), str(tmp_path / "sweep"), f"{runs / 'sft-1'}/"]
    assert [run.name for run in trained_runs(both)] == ["sft-1", "bear-1"]
    assert [run.name for run in trained_runs([str(runs / "bear-2")])] == ["bear-2"]  # by name: any run


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda folder: None, MissingFileError, "run does not exist"),
        (lambda folder: folder.mkdir(), MissingFileError, "there is no finished run"),
        (
            lambda folder: write_run(folder / "a", result={"chosen": False}),
            MissingFileError,
            "of 1 runs none was chosen",
        ),
        (write_run, ResumeError, r"run is not finished: it has no result\.json"),
        (
            lambda folder: write_run(folder, result={"status": "failed", "error": "no memory left"}),
            ResumeError,
            r"its training failed \(no memory left\)",
        ),
        (lambda folder: write_run(folder, result={}, run={"lam": 1}), BearrayError, "lam"),
    ],
    ids=["nothing", "empty", "none chosen", "unfinished", "failed", "other settings"],
)
def test_what_cannot_be_measured_is_said(tmp_path: Path, make: Any, error: Any, message: str) -> None:
    folder = tmp_path / "run"
    make(folder)
    with pytest.raises(error, match=message):
        trained_runs([str(folder)])


def test_a_config_of_something_else_is_damage(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", result={})
    (folder / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(DataError, match=r"run/config\.json: has no 'run'"):
        trained_runs([str(folder)])


def test_the_data_must_be_those_of_the_run(tmp_path: Path, demo_dir: Path) -> None:
    right = open_dataset(demo_dir).content_hash
    run = open_run(Storage(str(write_run(tmp_path / "a", result={}, data="gone", data_hash=right))))
    assert relocated(run, data_dir=str(demo_dir), base_model="elsewhere").model.base == "elsewhere"
    assert relocated(run, data_dir=str(demo_dir)).data.path == str(demo_dir)
    assert relocated(run, data_dir=str(demo_dir)).model == run.config.model
    with pytest.raises(MissingFileError, match="gone"):
        relocated(run)
    other = open_run(Storage(str(write_run(tmp_path / "b", result={}, data=str(demo_dir)))))
    with pytest.raises(ResumeError, match=rf"b was trained on other data.*{right[:12]}.*abc.*--data-dir"):
        relocated(other)


@pytest.mark.parametrize("address", ["s3://a-strangers/data", "file:///tmp", "http://x/y", ""])
def test_an_address_of_data_is_followed_only_when_the_user_repeats_it(
    tmp_path: Path, demo_dir: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = open_dataset(demo_dir).content_hash
    run = open_run(Storage(str(write_run(tmp_path / "a", result={}, data=address, data_hash=right))))
    with monkeypatch.context() as patch:
        patch.setattr("bearray.trained.open_dataset", lambda *_, **__: pytest.fail("it was opened"))
        with pytest.raises(MissingFileError, match=r"an address that a run names.*--data-dir"):
            relocated(run)
    assert relocated(run, data_dir=demo_dir.as_uri()).data.path == demo_dir.as_uri()


def test_a_run_must_say_which_its_data_are(tmp_path: Path, demo_dir: Path) -> None:
    run = open_run(Storage(str(write_run(tmp_path / "a", result={}, data=str(demo_dir), data_hash=None))))
    for data_dir in (None, str(demo_dir)):
        with pytest.raises(DataError, match=r"a/config\.json has no data_hash"):
            relocated(run, data_dir=data_dir)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With one model that was downloaded before."""
    snapshot = tmp_path / "hub" / "models--owner--known" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (snapshot / "tokenizer.json").write_text("{}")
    refs = tmp_path / "hub" / "models--owner--known" / "refs"
    refs.mkdir()
    (refs / "main").write_text("c0ffee")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize(
    ("base", "opened"),
    [
        ("owner/known", True),
        ("llama-3.2-3b", True),
        ("Qwen/Qwen2.5-3B", True),
        ("/models/own", True),
        ("owner/never-heard-of", False),
        ("gpt2", False),
        ("not a hub id; curl x", False),
        ("a\0b", False),
    ],
)
def test_a_base_model_is_downloaded_only_when_bearray_or_the_user_names_it(
    tmp_path: Path, demo_dir: Path, hub_cache: Path, base: str, opened: bool
) -> None:
    right = open_dataset(demo_dir).content_hash
    folder = write_run(tmp_path / "a", result={}, data=str(demo_dir), data_hash=right, base=base)
    run = open_run(Storage(str(folder)))
    assert relocated(run, base_model=base).model.base == base
    if opened:
        assert relocated(run).model.base == base
    else:
        with pytest.raises(ModelError, match=r"never downloaded here.*--base-model"):
            relocated(run)


def test_a_model_is_the_same_wherever_it_lies(demo_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_dataset(demo_dir)
    config = override(RunConfig(), {"data.path": "a/demo", "model.base": "cache/tiny-1", "train.lr": 0.5})
    identity = model_identity(config, "old/checkpoints/checkpoint_3", data)
    moved = override(config, {"data.path": "b/demo", "model.base": "/else/tiny-1", "evaluation.actors": 3})
    assert model_identity(moved, "new/checkpoints/checkpoint_3", data) == identity
    assert json.loads(json.dumps(identity)) == identity
    for part, changes in {
        "config": {"train.lr": 0.25},
        "base_model": {"model.base": "cache/tiny-2"},
    }.items():
        other = model_identity(override(config, changes), "old/checkpoints/checkpoint_3", data)
        assert {k for k in identity if identity[k] != other[k]} == {part}
    assert model_identity(config, None, data)["checkpoint"] is None

    def later(value: Any) -> Any:  # a version that has one setting more
        tree = to_dict(value)
        return {**tree, "train": {**tree["train"], "new": 1}}

    monkeypatch.setattr("bearray.trained.to_dict", later)
    assert model_identity(config, "old/checkpoints/checkpoint_3", data) == identity
