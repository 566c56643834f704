"""Which trials ASHA stops, what it knows after a restart, what run folder, Optuna and choice make of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from ray.train import Checkpoint
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import TrialScheduler

from bearray.config import override
from bearray.errors import ConfigError
from bearray.report.collect import collect
from bearray.runs import Storage
from bearray.training.written import KEEP, SCORE
from bearray.tuning.config import SearchConfig, SweepConfig, scaled
from bearray.tuning.plans import trial_plan
from bearray.tuning.stages import choose
from bearray.tuning.stopping import (
    EPOCH,
    REPORTED,
    EpochASHA,
    EpochReport,
    PrunedTrials,
    StoppedRuns,
    mark_stopped,
)
from bearray.tuning.trial import RunPlan, begin, ended, finished

ASHA = SearchConfig(early_stopping="asha", grace_epochs=1, reduction_factor=2, trials=4)
GO, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


@pytest.fixture
def plan(make_run: Callable[..., Any]) -> RunPlan:
    return RunPlan(
        config=make_run({"train.epochs": 4}),
        role="trial",
        method="BEAR",
        dataset="demo",
        base_model="micro",
        base_model_kind="local stand-in",
        data_hash="abc",
    )


def trial(lam: float, **about: Any) -> Any:
    return SimpleNamespace(trial_id=f"t{lam}", config={"lam": lam, "xi": 1.0}, **about)


def rows(*scores: float | None) -> list[dict[str, Any]]:
    """metrics.jsonl of a run with these scores; None: not validated."""
    return [
        {"kind": "epoch", "epoch": i, "seconds": 2.0}
        | ({} if s is None else {SCORE: s, "valid_hr@10": s / 2, "valid_seconds": 0.5})
        for i, s in enumerate(scores, 1)
    ]


def scheduler(plan: RunPlan, storage: Path, *, epochs: int = 4) -> EpochASHA:
    made = EpochASHA(ASHA, epochs=epochs, storage=str(storage), plan=plan.to_dict())
    assert made.set_search_properties(SCORE, "max")
    return made


def feed(asha: EpochASHA, one: Any, *scores: float, first: int = 1) -> list[str]:
    return [asha.on_trial_result(None, one, {EPOCH: e, SCORE: s}) for e, s in enumerate(scores, first)]  # type: ignore[arg-type]


def test_the_worse_half_is_stopped_and_no_trial_at_its_last_epoch(plan: RunPlan, tmp_path: Path) -> None:
    asha = scheduler(plan, tmp_path)
    one, two, three, four = (trial(lam) for lam in (1.0, 2.0, 3.0, 4.0))
    for each in (one, two, three, four):
        asha.on_trial_add(None, each)
    assert feed(asha, one, 0.5, 0.5, 0.5, 0.5) == [GO] * 4
    assert feed(asha, two, 0.4) == [STOP]
    assert feed(asha, three, 0.6, 0.4) == [GO, STOP]
    assert feed(asha, four, 0.7, 0.7, 0.1, 0.0) == [GO] * 4  # epoch 4 is the last: nothing is saved by a stop


def test_after_a_restart_the_earlier_trials_still_count(plan: RunPlan, tmp_path: Path) -> None:
    """Ray keeps no state of a scheduler, and a resumed trial's results are counted from 1 again."""
    done, resumed, new = (trial(lam) for lam in (1.0, 2.0, 3.0))
    for one, scores in ((done, (0.5, 0.6, 0.7, 0.8)), (resumed, (0.55,))):
        folder = Storage(str(tmp_path)).child("runs", trial_plan(one.config, plan.to_dict()).run_id)
        folder.write_lines("metrics.jsonl", rows(*scores))
    asha = scheduler(plan, tmp_path)
    for one in (done, resumed, new):
        asha.on_trial_add(None, one)
    assert feed(asha, new, 0.4) == [STOP]
    assert feed(asha, resumed, 0.1, first=2) == [STOP]
    assert feed(scheduler_with(plan, tmp_path / "empty", new), new, 0.4) == [GO]  # by itself it is the first


def scheduler_with(plan: RunPlan, storage: Path, one: Any) -> EpochASHA:
    asha = scheduler(plan, storage)
    asha.on_trial_add(None, one)
    return asha


def test_only_validated_epochs_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(
        TuneReportCallback, "after_report", lambda self, context, metrics, checkpoint: told.append(metrics[0])
    )
    report = EpochReport.__new__(EpochReport)
    checkpoint = Checkpoint("/somewhere")
    report.after_report(None, [{SCORE: -1.0, EPOCH: 1}], checkpoint)
    report.after_report(None, [{SCORE: 0.2, EPOCH: 2, KEEP: 2.0}], checkpoint)
    assert told == [{SCORE: 0.2, EPOCH: 2, "timesteps_total": 2}]


def test_a_stopped_run_says_so_and_is_never_chosen(plan: RunPlan, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    about = {"epochs": 4, "storage": storage.root, "plan": plan.to_dict()}
    stopped, other = trial(2.0, last_result={SCORE: 0.8, EPOCH: 3}), trial(1.0, last_result={REPORTED: "x"})
    folders = []
    for one in (stopped, other):
        run = trial_plan(one.config, plan.to_dict())
        folders.append(storage.child("runs", run.run_id))
        begin(run, folders[-1])
    folders[0].write_lines(
        "metrics.jsonl", rows(None, 0.9, 0.8, 0.95)
    )  # a fourth, before its workers were told
    for one in (stopped, other):
        StoppedRuns(ASHA, **about).on_trial_complete(1, [], one)  # type: ignore[arg-type]
    assert ended(folders[1]) is None  # a trial that came to its end writes its own
    result = ended(folders[0])
    assert result is not None and finished(folders[0]) is None
    assert result["status"] == "stopped" and result["best_epoch"] == 2
    assert result["stopped"].startswith("stopped after epoch 3 of 4, by ASHA")
    assert result["valid"] == {"ndcg@10": 0.9, "hr@10": 0.45}
    assert result["seconds"] == {"train": 8.0, "valid": 1.5}
    folders[1].write_json("result.json", {"status": "finished", "valid": {"ndcg@10": 0.1}})
    assert choose(folders) == folders[1]
    found = {run.status: run for run in collect(tmp_path).runs}
    assert set(found) == {"stopped", "finished"}
    assert found["stopped"].reason == result["stopped"]


def test_a_run_stopped_before_its_first_validation(tmp_path: Path) -> None:
    folder = Storage(str(tmp_path))
    mark_stopped(folder, 0, "by hand")
    assert folder.read_json("result.json")["best_epoch"] is None


def test_optuna_is_told_of_a_stopped_trial_as_pruned(tmp_path: Path) -> None:
    space = {"lam": optuna.distributions.FloatDistribution(0.1, 1.0)}
    search = PrunedTrials(space, metric=SCORE, mode="max")
    for name in ("stopped", "finished", "failed"):
        search.suggest(name)
    search.on_trial_result("stopped", {SCORE: 0.1, EPOCH: 1, "training_iteration": 1})
    search.on_trial_complete("stopped", {SCORE: 0.3, EPOCH: 2, "training_iteration": 1})
    search.on_trial_result("finished", {SCORE: 0.2, EPOCH: 2, "training_iteration": 1})
    last = {SCORE: 0.2, EPOCH: 2, REPORTED: "run", "training_iteration": 2}
    search.on_trial_result("finished", last)
    search.on_trial_complete("finished", last)
    search.on_trial_complete("failed", error=True)
    stopped, complete, failed = search._ot_study.trials  # type: ignore[union-attr]
    assert stopped.state.name == "PRUNED" and stopped.intermediate_values == {1: 0.1, 2: 0.3}
    assert complete.state.name == "COMPLETE" and complete.value == 0.2
    assert complete.intermediate_values == {2: 0.2}
    assert failed.state.name == "FAIL"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grace_epochs": 0}, r"search\.grace_epochs is 0"),
        ({"reduction_factor": 1}, r"search\.reduction_factor is 1"),
    ],
)
def test_searches_that_cannot_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SearchConfig(**changes)


def test_stopping_needs_epochs_to_save() -> None:
    run = override(SweepConfig().run, {"train.epochs": 2})
    search = dataclasses.replace(ASHA, grace_epochs=2)
    with pytest.raises(ConfigError, match=r"search\.grace_epochs is 2, but bear has 2 epochs"):
        SweepConfig(run=run, search=search)
    SweepConfig(run=run, search=search, method_settings=("bear:train.epochs=3",))
    assert scaled(SweepConfig(search=search), "smoke").search.early_stopping == "none"
    assert scaled(SweepConfig(search=ASHA), "cpu").search.early_stopping == "asha"
