"""Runs of a sweep that cannot be trained, by a loss that becomes NaN or too little memory: it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bearray.config import RunConfig, override
from bearray.errors import BearrayError
from bearray.runs import Storage
from bearray.tuning.config import SweepConfig
from bearray.tuning.sweep import run_sweep
from tests.conftest import MICRO_RUN
from tests.faults.helpers import (
    FAULT_RUN,
    Undisturbed,
    assert_predicted_as_undisturbed,
    assert_trained_as_undisturbed,
    compare,
)
from tests.faults.planted import Fault, begun, plant_in_trials

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

ALONE = {"train.num_workers": 1}


def test_a_sweep_goes_on_without_runs_that_cannot_be_trained(
    demo_dir: Path,
    micro_base: Path,
    undisturbed: Callable[[RunConfig], Undisturbed],
    fault_run: Callable[..., RunConfig],
    local_ray: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    fault = Fault(str(tmp_path / "journal"), step=4, do="memory", times=9, where={"objective.name": "d2lr"})
    plant_in_trials(monkeypatch, fault)
    storage = tmp_path / "storage"
    sweep = SweepConfig(
        data_dir=str(demo_dir),
        storage=str(storage),
        base_model=(str(micro_base),),
        methods=("msl", "d2lr", "sft"),
        method_settings=("sft:train.lr=1e30",),
        run=override(SweepConfig().run, {**MICRO_RUN, **FAULT_RUN, **ALONE}),
    )
    with pytest.raises(BearrayError) as caught:
        run_sweep(sweep)

    runs = {json.loads((f / "config.json").read_text())["method"]: f for f in (storage / "runs").iterdir()}
    results: dict[str, dict[str, Any]] = {
        method: json.loads((folder / "result.json").read_text()) for method, folder in runs.items()
    }
    assert {method: r["status"] for method, r in results.items()} == {
        "MSL": "finished", "D2LR": "failed", "SFT": "failed",
    }  # fmt: skip

    short = results["D2LR"]["error"]
    for text in (
        "OutOfMemoryError",
        "rank 0 ran out of memory",
        "allocate",
        "tried 2 times",
        "train.micro_batch_size (now 4)",
        "train.gradient_checkpointing",
    ):
        assert text in short, text  # fmt: skip
    assert begun(fault)[0, 4] == 2  # and not train.max_failures + 1 times
    rows = Storage(str(runs["D2LR"])).read_lines("events.jsonl")
    assert [(r["why"], r["ended_the_run"]) for r in rows] == [("memory", False), ("memory", True)]

    assert (
        "the gradient of 'sft'" in results["SFT"]["error"] or "the loss of 'sft'" in results["SFT"]["error"]
    )
    page = (storage / "report" / "index.html").read_text()
    for error in (short, results["SFT"]["error"]):
        assert error.partition(": ")[2] in str(caught.value)
    assert "ran out of memory" in page and "is not finite" in page

    config = fault_run({**ALONE, "objective.name": "msl"})
    expected = undisturbed(config)
    folder = Storage(str(runs["MSL"]))
    assert_trained_as_undisturbed(folder, expected)
    compare(results["MSL"]["test"], expected.test)
    assert_predicted_as_undisturbed(folder.child("predictions"), expected)
