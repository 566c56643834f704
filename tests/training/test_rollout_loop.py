"""Objectives that learn from what the policy finds or samples: any number of workers, and they learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.workers import Job, Outcome, run_job, run_jobs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LEARNING = {
    "model.lora_r": 8,
    "model.lora_targets": ["q_proj", "v_proj", "up_proj", "down_proj"],
    "data.train_windows": 8,
    "train.epochs": 24,
}
"""A step an epoch."""
OBJECTIVES: dict[str, dict[str, Any]] = {
    "grpo": {"objective.rollouts": 6},
    "best_of_n": {"objective.rollouts": 6},
    "flower": {"objective.theta": 0.9, "objective.personalised": False},
}
ENGINES: dict[str, dict[str, Any]] = {
    "ddp": {},
    "zero3": {"train.engine": "deepspeed", "train.zero_stage": 3},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rollouts")


@pytest.fixture(scope="module")
def pair(make_run, folder) -> dict[str, Outcome]:
    """Two workers, two micro-batches a step."""
    jobs = [
        Job(
            f"{name}-{engine}",
            {"objective.name": name, **changes, **ENGINES[engine], "train.micro_batch_size": 2},
        )
        for name, changes in OBJECTIVES.items()
        for engine in ENGINES
    ]
    return run_jobs(make_run(), jobs, folder, world=2)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_workers_with_any_engine_make_the_same_run(name, make_run, folder, pair) -> None:
    config = make_run({"objective.name": name, **OBJECTIVES[name]})
    alone = run_job(config, Job(name), folder)
    for engine in ENGINES:
        ours = pair[f"{name}-{engine}"]
        assert ours.error is None and len(ours.rows) == len(alone.rows) == 3
        for our, their in zip(ours.rows, alone.rows, strict=True):
            for key in their.keys() - {"kind", "tokens_per_s"}:
                assert our[key] == pytest.approx(their[key], rel=2e-4, abs=2e-4), (engine, our["step"], key)
        for key, weight in alone.adapter.items():
            torch.testing.assert_close(ours.adapter[key], weight, rtol=0, atol=2e-4, msg=key)


@pytest.mark.parametrize(
    ("changes", "metric", "factor"),
    [
        ({"objective.name": "grpo", "objective.rollouts": 20}, "rollout_ndcg", 1.5),
        ({"objective.name": "best_of_n", "objective.rollouts": 20}, "policy_mass", 1.5),
        (
            {"objective.name": "flower", "objective.theta": 0.0, "objective.personalised": False},
            "subtb",
            0.9,
        ),
    ],
    ids=lambda x: x["objective.name"] if isinstance(x, dict) else str(x),
)
def test_training_moves_what_it_is_about(changes, metric, factor, make_run, folder) -> None:
    job = Job("learns-" + changes["objective.name"], epochs=24)
    rows = run_job(make_run({**LEARNING, **changes}), job, folder).rows
    early, late = (sum(row[metric] for row in part) / 6 for part in (rows[:6], rows[-6:]))
    assert late > factor * early if factor > 1 else late < factor * early
