"""A run that diverges under Ray Train ends at once: it is not started again, and its folder says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ray.util.state import list_actors

from bearray.config import override
from bearray.runs import Storage
from bearray.training.diverged import DivergedError
from bearray.training.loop import Loop
from bearray.training.trainer import train
from bearray.tuning.trial import RunPlan, execute, finished
from tests.training.workers import Job, run_job

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

DIVERGING: dict[str, Any] = {
    "objective.name": "sft",
    "train.lr": 1e30,
    "train.num_workers": 2,
    "train.max_failures": 3,
    "train.epochs": 2,
}
"""The first step makes the adapter so large that the second has no finite gradient or loss."""


def workers_so_far() -> int:
    return len(list_actors(filters=[("class_name", "=", "RayTrainWorker")], limit=1000))


@pytest.fixture(scope="module")
def plan(make_run) -> RunPlan:
    return RunPlan(
        config=make_run(DIVERGING),
        role="method",
        method="SFT",
        dataset="demo",
        base_model="micro",
        base_model_kind="local stand-in",
        data_hash="abc",
    )


def test_a_diverged_run_is_not_tried_again(plan, make_run, micro_task, local_ray, tmp_path) -> None:
    place = Storage(f"file://{tmp_path}/run")
    alone = run_job(make_run(DIVERGING), Job("alone"), tmp_path)
    before = workers_so_far()
    with pytest.raises(DivergedError) as caught:
        execute(plan, place)
    assert workers_so_far() - before == 2  # two workers, started once
    assert finished(place) is None
    result = place.read_json("result.json")
    assert result["status"] == "failed"
    report = place.read_json("diverged/diverged.json")
    for name in ("step", "what", "term", "batch"):
        assert report[name] == alone.report[name], name
    saved = str(tmp_path / "run" / "diverged")
    assert report["saved"] == saved
    for text in ("DivergedError", "of 'sft'", f"at step {report['step']} ", f"saved in {saved}", "train.lr"):
        assert text in result["error"], text
    assert str(caught.value) in result["error"]
    assert [r["step"] for r in place.read_lines("metrics.jsonl")] == list(range(report["step"]))

    loop = Loop(make_run(DIVERGING), micro_task, rank=0, world=1, device=torch.device("cpu"), log=dict)
    loop.restore(Path(saved))  # it is a checkpoint
    assert loop.epoch == 0

    # Given again, it is trained again, and the old report does not stand in its way.
    place.write_json("diverged/diverged.json", report | {"step": 99})
    with pytest.raises(DivergedError, match=f"at step {report['step']} "):
        train(override(plan.config, {"train.num_workers": 1}), place)
    assert workers_so_far() - before == 3
