"""Run folders as trials begin, end and are chosen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bearray.errors import ConfigError, ResumeError
from bearray.runs import Storage
from bearray.tuning.loggers import make_callbacks
from bearray.tuning.stages import choose
from bearray.tuning.trial import RunPlan, _identity, begin, execute, finished, reason, run_place, with_start


@pytest.fixture
def plan(make_run: Callable[..., Any]) -> RunPlan:
    return RunPlan(
        config=make_run(),
        role="trial",
        method="BEAR",
        dataset="demo",
        base_model="micro",
        base_model_kind="local stand-in",
        data_hash="abc",
    )


def test_a_plan_survives_the_way_to_a_worker(plan: RunPlan) -> None:
    assert RunPlan.from_dict(plan.to_dict()) == plan
    assert RunPlan.from_dict(plan.to_dict()).run_id == plan.run_id


def test_settings_that_were_added_later_change_no_id_unless_they_are_set(
    plan: RunPlan, make_run: Callable[..., Any], tmp_path: Path
) -> None:
    """The id by hand, and a folder begun by a version that did not have them."""
    later = ("last_weight", "power", "uninformative_weight")
    known = _identity(plan.config)
    assert not {*later} & set(known["objective"])
    folder = Storage(str(tmp_path / "run"))
    begin(plan, folder)
    old = folder.read_json("config.json")
    for name in later:
        del old["run"]["objective"][name]
    folder.write_json("config.json", old)
    begin(plan, folder)
    ids = {plan.run_id}
    for name in later:
        changed = dataclasses.replace(plan, config=make_run({f"objective.{name}": 0.5}))
        ids.add(changed.run_id)
        with pytest.raises(ResumeError, match=f"objective.{name}: None -> 0.5"):
            begin(changed, folder)
    assert len(ids) == 4


def test_begin_writes_what_reports_need(plan: RunPlan, tmp_path: Path) -> None:
    folder = Storage(str(tmp_path / "run"))
    begin(plan, folder)
    config = folder.read_json("config.json")
    assert {
        "run",
        "role",
        "method",
        "dataset",
        "base_model",
        "versions",
        "git",
        "data_hash",
        "created",
    } <= set(config)
    begin(plan, folder)  # the same again is no error
    assert folder.read_json("config.json") == config


def test_begin_refuses_another_run_and_says_what_differs(
    plan: RunPlan, make_run: Callable[..., Any], tmp_path: Path
) -> None:
    folder = Storage(str(tmp_path / "run"))
    begin(plan, folder)
    other = dataclasses.replace(plan, config=make_run({"objective.lam": 0.75}))
    with pytest.raises(ResumeError, match=r"objective\.lam: 0\.25 -> 0\.75"):
        begin(other, folder)
    with pytest.raises(ResumeError, match="data set has changed"):
        begin(dataclasses.replace(plan, data_hash="def"), folder)


def test_a_finished_run_is_not_trained_again(
    plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Storage(str(tmp_path / "run"))
    begin(plan, folder)
    done = {"status": "finished", "best_epoch": 1, "valid": {"ndcg@10": 0.1}}
    folder.write_json("result.json", done)

    def never(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("bearray.tuning.trial.train", never)
    assert execute(plan, folder) == done


def test_a_run_goes_on_with_other_resources(
    plan: RunPlan, make_run: Callable[..., Any], tmp_path: Path
) -> None:
    folder = Storage(str(tmp_path / "run"))
    begin(plan, folder)
    changes = {"evaluation.actors": 2, "train.cpus_per_worker": 0.5, "train.max_failures": 0}
    elsewhere = dataclasses.replace(plan, config=make_run(changes))
    assert elsewhere.run_id == plan.run_id
    begin(elsewhere, folder)
    assert dataclasses.replace(plan, config=make_run({"train.num_workers": 2})).run_id != plan.run_id


def test_a_run_starts_from_the_best_checkpoint_of_the_one_beside_it(
    plan: RunPlan, make_run: Callable[..., Any], tmp_path: Path
) -> None:
    runs = Storage(str(tmp_path / "before" / "runs"))
    begin(plan, runs.child("sft-1"))
    config = make_run({"train.init_adapter": run_place("sft-1")})
    with pytest.raises(ResumeError, match="sft-1 is not finished"):
        with_start(config, runs.child("dpo-2"))
    checkpoint = runs.child("sft-1", "checkpoints", "epoch2")
    checkpoint.write_bytes("state.json", b"{}")
    done = {"status": "finished", "valid": {"ndcg@10": 0.1}, "checkpoint": checkpoint.root}
    runs.child("sft-1").write_json("result.json", done)
    assert with_start(config, runs.child("dpo-2")).train.init_adapter == checkpoint.root
    (tmp_path / "before").rename(tmp_path / "after")  # the run's settings do not say where the storage is
    moved = with_start(config, Storage(str(tmp_path / "after" / "runs" / "dpo-2")))
    assert moved.train.init_adapter == checkpoint.root.replace("/before/", "/after/")
    assert with_start(make_run(), runs.child("sft-1")) == make_run()


def test_a_failed_run_says_why(plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Storage(str(tmp_path / "run"))

    def fail(*_: Any) -> None:
        raise RuntimeError("a traceback\nof many lines\nout of memory")

    monkeypatch.setattr("bearray.tuning.trial.train", fail)
    with pytest.raises(RuntimeError):
        execute(plan, folder)
    assert folder.read_json("result.json")["error"] == "RuntimeError: out of memory"
    assert finished(folder) is None


def test_a_stopped_run_stays_stopped_when_its_workers_are_taken_away(
    plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune removes a stopped trial's placement group first, and its driver sees its workers die."""
    folder = Storage(str(tmp_path / "run"))

    def stop(*_: Any) -> None:
        folder.write_json("result.json", {"status": "stopped", "stopped": "after epoch 1"})
        raise RuntimeError("the actor died")

    monkeypatch.setattr("bearray.tuning.trial.train", stop)
    with pytest.raises(RuntimeError):
        execute(plan, folder)
    assert folder.read_json("result.json")["status"] == "stopped"


def test_the_choice_is_by_validation_and_the_first_of_equals(tmp_path: Path) -> None:
    folders = [Storage(str(tmp_path / name)) for name in "abc"]
    for folder, score in zip(folders, (0.1, 0.3, 0.3), strict=True):
        folder.write_json(
            "result.json",
            {
                "status": "finished",
                "valid": {"ndcg@10": score},
                "test": {"trie": {"all": {"ndcg@10": {"mean": 1 - score}}}},
            },
        )
    assert choose(folders).root == folders[1].root
    assert choose(folders[::-1]).root == folders[1].root  # Ray reorders trials on a rerun


def test_reason_is_one_line() -> None:
    assert reason(ValueError("first\n\n  last  \n")) == "ValueError: last"


def test_a_tracker_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'bearray\[wandb\]'"):
        make_callbacks(["wandb"], project="p")
    assert make_callbacks([], project="p") == []
