"""The study of all objectives: its settings work for each of them, at every scale."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from bearray.config import override
from bearray.data import open_dataset
from bearray.objectives import OBJECTIVES, make_objective
from bearray.task import load_task
from bearray.training.checks import check_objective
from bearray.tuning.main import parse
from bearray.tuning.plans import Place, plan_runs
from bearray.tuning.trial import run_needed

STUDY = runpy.run_path(str(Path(__file__).resolve().parents[2] / "sweeps" / "study.py"))
SCALES: dict[str, list[str]] = {"paper": [], "cpu": ["--scale", "cpu"], "smoke": ["--smoke"]}


def study(*arguments: str) -> Any:
    return parse(STUDY["sweep"], list(arguments), at_scale=STUDY["at_scale"])


@pytest.mark.parametrize("scale", SCALES)
def test_every_objective_can_be_trained_as_the_study_says(
    scale: str, demo_dir: Path, micro_base: Path
) -> None:
    sweep = study(*SCALES[scale], "--base-model", "base")
    assert sweep.methods == tuple(OBJECTIVES)
    assert sweep.run.evaluation.exact_test
    plans = plan_runs(sweep, open_dataset(demo_dir), "base", str(micro_base))
    assert len(plans) == len(OBJECTIVES) * len(sweep.all_seeds)
    places = {"data.path": str(demo_dir), "train.init_adapter": None}
    task = None
    for place, plan in plans.items():
        config = override(plan.config, places)
        task = task or load_task(config)
        check_objective(config, task)
        rounds = make_objective(config.objective).schedule(config.train.epochs)
        assert len(rounds) == config.train.epochs, place
    started = {place.method for place, plan in plans.items() if run_needed(plan.config)}
    assert started == {m for m in OBJECTIVES if sweep.starts_from_sft(m)}


def test_small_scales_are_small_and_the_paper_is_not() -> None:
    paper, cpu, smoke = (study(*SCALES[scale]) for scale in ("paper", "cpu", "smoke"))
    windows = [s.run.data.train_windows * s.run.train.epochs * len(s.all_seeds) for s in (paper, cpu, smoke)]
    assert windows[0] >= 50 * windows[1] >= 50 * 10 * windows[2]
    assert len(paper.all_seeds) >= 3 and len(cpu.all_seeds) >= 2


def test_explicit_settings_win_over_the_scale() -> None:
    sweep = study(
        "--scale", "cpu", "--seeds", "7", "--train.epochs", "3", "--method-settings", "sft:train.lr=1"
    )
    assert (sweep.seeds, sweep.run.train.epochs, sweep.method_settings) == ((7,), 3, ("sft:train.lr=1",))


def test_after_sft_the_rate_is_lower(demo_dir: Path) -> None:
    plans = plan_runs(study("--scale", "cpu", "--base-model", "b"), open_dataset(demo_dir), "b", "/b")
    for place, plan in plans.items():
        sft = plans[Place("b", "sft", place.seed)].config.train.lr
        assert (plan.config.train.lr < sft) == (run_needed(plan.config) is not None)
