"""The training loop: the same run on any number of workers, by any engine, interrupted or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bearray.objectives import LossOutput
from bearray.training.loop import Loop
from bearray.training.start import new_model
from tests.training.workers import Job, Outcome, run_job, run_jobs

ZERO = {
    f"zero{stage}": {"train.engine": "deepspeed", "train.zero_stage": stage, "train.micro_batch_size": 2}
    for stage in range(4)
}
"""On two workers two micro-batches a step, on one worker four."""
ENGINES = {"ddp": {"train.micro_batch_size": 2}, **ZERO}
RELEASED = {"objective.form": "released", "objective.lam": 3.0, "objective.xi": 0.5}
ODD = {"model.lora_r": 1, "model.lora_targets": ["q_proj", "down_proj"]}
"""down_proj reads 67 numbers: the parts of its adapter on two workers are padded."""
CLIPPED = {"train.max_grad_norm": 2e-3}
DROPOUT = {"model.lora_dropout": 0.4}
BF16 = {"train.precision": "bf16"}
VARIANTS: dict[str, dict[str, Any]] = {
    "equation": {},
    "released": RELEASED,
    "clipped": CLIPPED,
    "adaptive": {"objective.name": "msl", "objective.adaptive": True},
    "odd": ODD,
}

TWO_WORKERS = [
    *[(variant, engine) for variant in ("equation", "released") for engine in ENGINES],
    *[("clipped", engine) for engine in ("ddp", "zero0", "zero2", "zero3")],
]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loop")


@pytest.fixture(scope="module")
def reference(make_run, folder) -> dict[str, Outcome]:
    """One process, one micro-batch a step, no torch.distributed."""
    runs = {
        **{
            name: run_job(make_run(changes), Job(name, epochs=2, validate=True), folder)
            for name, changes in VARIANTS.items()
        },
        "bf16": run_job(make_run(BF16), Job("bf16", epochs=2), folder),
    }
    assert all(len(run.rows) == 6 for run in runs.values())
    return runs


@pytest.fixture(scope="module")
def pair(make_run, folder) -> dict[str, Outcome]:
    """Two workers."""
    jobs = [
        *[Job(f"2-rounds-{4 // size}", {"train.micro_batch_size": size}, epochs=2) for size in (4, 2, 1)],
        *[Job(f"2-{v}-{e}", {**VARIANTS[v], **ENGINES[e]}, epochs=2) for v, e in TWO_WORKERS],
        Job("2-adaptive-ddp", {**VARIANTS["adaptive"], **ENGINES["ddp"]}, epochs=2),
        *[Job(f"2-odd-{e}", {**ODD, **ENGINES[e]}, epochs=2, save=True) for e in ("zero2", "zero3")],
        Job("2-valid-ddp", ENGINES["ddp"], epochs=2, validate=True),
        Job("2-valid-zero3", ZERO["zero3"], epochs=2, validate=True, save=True),
        Job("2-one-valid-zero3", {**ZERO["zero3"], "data.valid_windows": 1}, epochs=2, validate=True),
        *[Job(f"2-dropout-{e}", {**DROPOUT, **ENGINES[e]}, epochs=2, save=True) for e in ("ddp", "zero2")],
        *[Job(f"2-bf16-{e}", {**BF16, **ENGINES[e]}, epochs=2) for e in ("zero2", "zero3")],
    ]
    return run_jobs(make_run(), jobs, folder, world=2)


@pytest.fixture(scope="module")
def single(make_run, folder, pair) -> dict[str, Outcome]:
    """One worker, DeepSpeed with several micro-batches a step; some continue what two workers began."""
    begun = folder / "2-valid-zero3" / "1"
    jobs = [
        *[Job(f"1-equation-{engine}", changes, epochs=2) for engine, changes in ZERO.items()],
        *[Job(f"1-continued-{e}", c, epochs=2, restore=begun, validate=True) for e, c in ENGINES.items()],
    ]
    return run_jobs(make_run(), jobs, folder, world=1)


@pytest.fixture(scope="module")
def continued(make_run, folder, pair) -> dict[str, Outcome]:
    """Two new processes that continue what two others began."""
    jobs = [
        *[
            Job(
                f"3-dropout-{e}", {**DROPOUT, **ENGINES[e]}, epochs=2, restore=folder / f"2-dropout-{e}" / "1"
            )
            for e in ("ddp", "zero2")
        ],
        *[
            Job(f"3-odd-{e}", {**ODD, **ENGINES[e]}, epochs=2, restore=folder / f"2-odd-{e}" / "1")
            for e in ("zero2", "zero3")
        ],
        Job("3-zero3", ZERO["zero3"], epochs=2, restore=folder / "2-valid-zero3" / "1"),
        Job("3-zero1", ZERO["zero1"], epochs=2, restore=folder / "2-valid-zero3" / "1"),
    ]
    return run_jobs(make_run(), jobs, folder, world=2)


def assert_same_run(ours: Outcome, theirs: Outcome, *, atol: float = 1e-5, first_step: int = 0) -> None:
    """The same losses and metrics at each step, the same adapter, the same state of Adam.

    Adam's moments are compared because Adam itself hides a gradient of the wrong scale.
    """
    assert ours.error is None and theirs.error is None
    wanted = theirs.rows[first_step:]
    assert [r["step"] for r in ours.rows] == [r["step"] for r in wanted]
    for our, their in zip(ours.rows, wanted, strict=True):
        assert our.keys() == their.keys() >= {"loss", "nll", "violation", "margin", "lr", "tokens_per_s"}
        for name in our.keys() - {"kind", "tokens_per_s"}:
            assert our[name] == pytest.approx(their[name], rel=atol, abs=atol), (our["step"], name)
    assert ours.adapter.keys() == theirs.adapter.keys()
    for name, weight in theirs.adapter.items():
        assert weight.dtype == torch.float32 and weight.any()
        torch.testing.assert_close(ours.adapter[name], weight, rtol=0, atol=atol, msg=name)
    assert ours.moments.keys() == theirs.moments.keys()
    for name, moment in theirs.moments.items():
        scale = float(moment.abs().max())
        assert scale > 0
        torch.testing.assert_close(ours.moments[name], moment, rtol=0, atol=20 * atol * scale, msg=name)


def test_rows_say_what_happened(reference):
    for run in reference.values():
        assert [r["epoch"] for r in run.rows] == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
        assert all(r["kind"] == "step" and 0 <= r["violation"] <= 1 for r in run.rows)
    assert all("regularizer" in row for row in reference["equation"].rows)
    assert [v["valid_n"] for v in reference["equation"].valid] == [29, 29]


@pytest.mark.parametrize("objective", ["sft", "msl", "bear"])
def test_training_learns_its_windows(objective, make_run, folder):
    epochs = 12
    everywhere = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
    config = make_run(
        {
            "objective.name": objective,
            "train.epochs": epochs,
            "train.lr": 0.03,
            "model.lora_r": 8,
            "model.lora_targets": everywhere,
        }
    )
    nll = [row["nll"] for row in run_job(config, Job(f"learns-{objective}", epochs=epochs), folder).rows]
    assert sum(nll[-3:]) < 0.95 * sum(nll[:3])


@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_accumulation_does_not_change_the_run(rounds, pair, reference):
    assert_same_run(pair[f"2-rounds-{rounds}"], reference["equation"])


@pytest.mark.parametrize(("variant", "engine"), TWO_WORKERS)
def test_two_workers_with_any_engine_make_the_same_run(variant, engine, pair, reference):
    assert_same_run(pair[f"2-{variant}-{engine}"], reference[variant])


@pytest.mark.parametrize("engine", ZERO)
def test_one_worker_with_any_stage_makes_the_same_run(engine, single, reference):
    assert_same_run(single[f"1-equation-{engine}"], reference["equation"])


def test_the_variants_are_different_runs(reference):
    """Otherwise the comparisons above would hold whatever the engines did with the settings."""
    for name in ("released", "clipped", "adaptive", "odd"):
        with pytest.raises(AssertionError):
            assert_same_run(reference[name], reference["equation"])
    moments = [reference[name].moments for name in ("clipped", "equation")]
    clipped, free = (max(float(m.abs().max()) for n, m in ms.items() if n != "step") for ms in moments)
    assert clipped < 0.5 * free


def test_adaptive_temperature_is_the_same_on_two_workers(pair, reference):
    assert_same_run(pair["2-adaptive-ddp"], reference["adaptive"])


@pytest.mark.parametrize("engine", ["ddp", "zero3"])
def test_validation_on_two_workers_is_the_same_and_disturbs_nothing(engine, pair, reference):
    """29 windows on two workers; with ZeRO-3 the workers' searches take different numbers of steps."""
    run = pair[f"2-valid-{engine}"]
    assert run.valid == [pytest.approx(v) for v in reference["equation"].valid]
    assert run.valid[-1]["valid_ndcg@10"] > 0
    assert_same_run(run, reference["equation"])


def test_a_worker_without_validation_windows_waits_for_the_others(pair, reference):
    run = pair["2-one-valid-zero3"]
    assert [v["valid_n"] for v in run.valid] == [1, 1]
    assert_same_run(run, reference["equation"])


@pytest.mark.parametrize("engine", ["ddp", "zero2"])
def test_a_resumed_run_equals_an_uninterrupted_one_dropout_included(engine, pair, continued):
    assert_same_run(continued[f"3-dropout-{engine}"], pair[f"2-dropout-{engine}"], atol=1e-6, first_step=3)


@pytest.mark.parametrize("engine", ["zero3", "zero1"])
def test_a_zero3_checkpoint_restores_on_two_workers(engine, pair, continued):
    atol = 1e-6 if engine == "zero3" else 1e-5
    assert_same_run(continued[f"3-{engine}"], pair["2-valid-zero3"], atol=atol, first_step=3)


@pytest.mark.parametrize("engine", ["zero2", "zero3"])
def test_adapters_that_workers_cannot_share_evenly(engine, pair, continued, reference):
    assert_same_run(pair[f"2-odd-{engine}"], reference["odd"])
    assert_same_run(continued[f"3-odd-{engine}"], pair[f"2-odd-{engine}"], atol=1e-6, first_step=3)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_checkpoint_of_two_zero3_workers_restores_on_one_of_any_engine(engine, pair, single):
    run = single[f"1-continued-{engine}"]
    assert_same_run(run, pair["2-valid-zero3"], first_step=3)
    assert run.valid == [pytest.approx(pair["2-valid-zero3"].valid[1])]


def test_dropout_changes_the_run(pair):
    with pytest.raises(AssertionError):
        assert_same_run(pair["2-dropout-ddp"], pair["2-equation-ddp"])


@pytest.mark.parametrize("engine", ["zero2", "zero3"])
def test_float32_adapter_on_a_bfloat16_base(engine, pair, reference):
    run, plain = pair[f"2-bf16-{engine}"], reference["bf16"]
    assert all(weight.dtype == torch.float32 for weight in run.adapter.values())
    for name in ("loss", "nll"):
        losses = [[row[name] for row in r.rows] for r in (run, plain, reference["equation"])]
        assert losses[0] == pytest.approx(losses[1], abs=2e-2)
        assert losses[0] == pytest.approx(losses[2], abs=5e-2)
        assert losses[0] != losses[2]


@pytest.mark.parametrize("dropout", [{}, DROPOUT])
def test_gradient_checkpointing_gives_the_same_gradients(dropout, make_run, folder):
    plain = run_job(make_run(dropout), Job("plain"), folder)
    saving = run_job(make_run({**dropout, "train.gradient_checkpointing": True}), Job("saving"), folder)
    assert_same_run(saving, plain, atol=1e-6)


def test_gradient_checkpointing_recomputes_the_layers(make_run, micro_task):
    config = make_run({"train.gradient_checkpointing": True})
    loop = Loop(config, micro_task, rank=0, world=1, device=torch.device("cpu"), log=dict)
    calls: list[int] = []
    loop.model.get_base_model().model.layers[0].self_attn.register_forward_pre_hook(
        lambda *_: calls.append(1)
    )
    loop.run_epoch()
    assert len(calls) == 2 * loop.step


def test_released_bear_over_several_rounds_runs_forward_twice_with_the_same_dropout(make_run, micro_task):
    """Its weight depends on the logits of all micro-batches, so they are computed once before."""
    config = make_run({**RELEASED, **DROPOUT, "train.micro_batch_size": 4})
    loop = Loop(config, micro_task, rank=0, world=1, device=torch.device("cpu"), log=dict)
    weights: list[float] = []

    def note(_: Any, __: Any, output: LossOutput) -> None:
        weights.append(float(output.weight))

    loop.engine.module.register_forward_hook(note)
    loop.run_epoch()
    assert len(weights) == 2 * 2 * loop.step
    for first in range(0, len(weights), 4):
        assert weights[first : first + 2] == weights[first + 2 : first + 4]


def test_several_objectives_take_their_steps_on_one_model(make_run, micro_task):
    parts = {"rank": 0, "world": 1, "device": torch.device("cpu")}
    config = {"train.lr": 1e-30, "objective.negatives": 2}  # so that steps leave the model as it is
    model = new_model(make_run(), torch.device("cpu"))
    batch = np.arange(8)
    for name in ("sft", "sdpo", "bear", "dpo"):
        losses = []
        for given in (model, None):
            rows: list[dict[str, Any]] = []
            run = make_run({**config, "objective.name": name})
            Loop(run, micro_task, log=rows.append, model=given, **parts).train_step(0, batch)
            losses.append([row["loss"] for row in rows])
        assert losses[0] == pytest.approx(losses[1], rel=1e-6), name
