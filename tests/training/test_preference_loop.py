"""Preference objectives in the loop: references, negatives and several answers, by any engine and number of
workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bearray.config import override
from bearray.errors import ConfigError
from bearray.training.loop import Loop
from tests.training.workers import Job, Outcome, run_job, run_jobs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ENGINES: dict[str, dict[str, Any]] = {
    "ddp": {},
    **{f"zero{s}": {"train.engine": "deepspeed", "train.zero_stage": s} for s in (0, 2, 3)},
}
SDPO = {
    "objective.name": "sdpo",
    "objective.negatives": 2,
    "objective.negative_kind": "self",
    "train.micro_batch_size": 2,
}
METRICS = {"loss", "nll", "violation", "margin", "preference_accuracy", "reward_margin"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("preference")


@pytest.fixture(scope="module")
def started(make_run, folder) -> dict[str, Any]:
    """S-DPO from an SFT run's adapter, which is its reference."""
    run_job(make_run({"objective.name": "sft"}), Job("sft"), folder)
    return {**SDPO, "train.init_adapter": str(folder / "sft" / "final")}


@pytest.fixture(scope="module")
def reference(make_run, folder, started) -> Outcome:
    """One process, one micro-batch a step."""
    config = make_run({**started, "train.micro_batch_size": 8})
    return run_job(config, Job("reference", epochs=2, refresh=True, save=True), folder)


@pytest.fixture(scope="module")
def pair(make_run, folder, started) -> dict[str, Outcome]:
    """Two workers, two micro-batches a step; one run continues what another began."""
    jobs = [Job(e, {**started, **c}, epochs=2, refresh=True, save=True) for e, c in ENGINES.items()]
    jobs += [
        Job(f"{e}-again", {**started, **ENGINES[e]}, 2, folder / "zero3" / "1", refresh=True)
        for e in ("ddp", "zero3")
    ]
    return run_jobs(make_run(), jobs, folder, world=2)


def assert_same(ours: Outcome, theirs: Outcome, first_step: int = 0) -> None:
    assert ours.error is None and len(ours.rows) == len(theirs.rows) - first_step
    for our, their in zip(ours.rows, theirs.rows[first_step:], strict=True):
        assert our["step"] == their["step"] and our.keys() >= METRICS
        for name in METRICS:
            assert our[name] == pytest.approx(their[name], rel=2e-4, abs=2e-4), (our["step"], name)
    for kind in ("adapter", "reference"):
        mine, wanted = getattr(ours, kind), getattr(theirs, kind)
        assert mine.keys() == wanted.keys() and mine
        for name, weight in wanted.items():
            torch.testing.assert_close(mine[name], weight, rtol=0, atol=1e-4, msg=name)


def test_the_reference_is_where_training_started(reference: Outcome) -> None:
    first, second = reference.rows[0], reference.rows[1]
    assert first["reward_margin"] == pytest.approx(0, abs=1e-5)  # nothing has moved yet
    assert first["loss"] == pytest.approx(torch.tensor(3.0).log().item(), abs=1e-5)  # log(1 + 2 negatives)
    assert second["reward_margin"] != pytest.approx(0, abs=1e-5)
    # after an epoch it was made what the adapter was by then
    assert reference.rows[3]["reward_margin"] == pytest.approx(0, abs=1e-5)
    for name, weight in reference.reference.items():  # and again after the last one
        assert torch.equal(weight, reference.adapter[name.replace(".reference.", ".")])


@pytest.mark.parametrize("engine", ENGINES)
def test_two_workers_with_any_engine_make_the_same_run(engine, pair, reference) -> None:
    assert_same(pair[engine], reference)


@pytest.mark.parametrize("engine", ["ddp", "zero3"])
def test_a_checkpoint_keeps_the_reference(engine, pair, reference) -> None:
    assert_same(pair[f"{engine}-again"], reference, first_step=3)


def test_a_run_of_another_start_is_another_run(make_run, folder, reference) -> None:
    other = run_job(make_run({**SDPO, "train.micro_batch_size": 8}), Job("fresh", epochs=2), folder)
    with pytest.raises(AssertionError):
        assert_same(other, reference)


@pytest.mark.parametrize(
    "changes",
    [
        {"objective.name": "sdpo", "objective.negative_kind": "near"},
        {"objective.name": "sdpo_bear", "objective.mask_common_prefix": True},
        {"objective.name": "dpo", "objective.negative_kind": "popularity", "objective.reference": "base"},
        {"objective.name": "dmpo", "objective.negative_kind": "near", "objective.near_to": "target"},
        {"objective.name": "rosepo"},
    ],
    ids=lambda c: "-".join(str(v) for v in c.values()),
)
def test_training_learns_to_prefer_the_targets(changes, make_run, folder) -> None:
    wide = {"model.lora_r": 8, "model.lora_targets": ["q_proj", "v_proj", "up_proj", "down_proj"]}
    config = make_run({**changes, **wide, "train.epochs": 8, "train.lr": 0.01})
    rows = run_job(config, Job("learns-" + str(changes["objective.name"]), epochs=8), folder).rows
    assert all(row.keys() >= METRICS for row in rows)
    assert rows[0]["reward_margin"] == pytest.approx(0, abs=1e-5)
    late = rows[-6:]
    assert sum(r["loss"] for r in late) / 6 < rows[0]["loss"]
    assert sum(r["reward_margin"] for r in late) / 6 > 0.3


def test_an_adapter_that_cannot_be_started_from_is_refused(make_run, micro_task, started, folder) -> None:
    parts = {"rank": 0, "world": 1, "device": torch.device("cpu"), "log": dict}
    empty = folder / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match=r"which has no adapter_config\.json"):
        Loop(make_run({**started, "train.init_adapter": str(empty)}), micro_task, **parts)
    config = override(make_run(started), {"model.lora_r": 3})
    with pytest.raises(ValueError, match=r"model\.lora_r 2, this run has 3; give it 2"):
        Loop(config, micro_task, **parts)
