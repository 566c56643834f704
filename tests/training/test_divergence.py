"""A loss that is no longer finite stops the run on all workers, before it does harm, and says why."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from bearray.batching import plan_epoch
from bearray.training.checkpoint import load_file
from bearray.training.diverged import DivergedError, describe, write_report
from bearray.training.loop import Loop
from tests.training.workers import POISONED, Job, Outcome, run_job, run_jobs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ENGINES: dict[str, dict[str, Any]] = {
    "ddp": {},
    **{f"zero{s}": {"train.engine": "deepspeed", "train.zero_stage": s} for s in range(4)},
}
CAUSES: dict[str, dict[str, Any]] = {
    "regularizer": {"objective.xi": 1e-45},
    "loss": {"objective.lam": 1e39},
    "gradient": {"train.lr": 1e30},
}
"""What makes the run diverge, by the part that is not finite: at step 0, and the gradient at step 1."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("diverged")


@pytest.fixture(scope="module")
def single(make_run, folder) -> dict[str, Outcome]:
    runs = {c: run_job(make_run(changes), Job(f"1-{c}"), folder) for c, changes in CAUSES.items()}
    return runs | {"weights": run_job(make_run(), Job("1-weights", poisoned=0), folder)}


@pytest.fixture(scope="module")
def pair(make_run, folder) -> dict[str, Outcome]:
    few = {"train.micro_batch_size": 2}
    jobs = [
        Job(f"{c}-{e}", {**CAUSES[c], **ENGINES[e], **few}) for c in ("loss", "gradient") for e in ENGINES
    ]
    jobs += [
        Job("gradient-zero2-unclipped", {**CAUSES["gradient"], **ENGINES["zero2"], "train.max_grad_norm": 0}),
        Job("weights", few, poisoned=1),
    ]
    return run_jobs(make_run(), jobs, folder, world=2)


@pytest.fixture(scope="module")
def batches(make_run, micro_task) -> list[list[int]]:
    """Rows of the first epoch's batches."""
    config = make_run().train
    lengths = [len(e.prompt) + len(e.answer) for e in micro_task.examples()]
    plan = plan_epoch(lengths, config.batch_size, seed=config.seed, epoch=0)
    return [sorted(int(row) for row in batch) for batch in plan]


def adapter_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize("cause", [*CAUSES, "weights"])
def test_the_report_names_step_users_and_term(cause, single, batches, micro_task) -> None:
    run, step = single[cause], int(cause == "gradient")
    report = run.report
    assert [row["step"] for row in run.rows] == list(range(step))
    assert report["term"] == cause and report["step"] == step
    assert report["what"] == ("gradient" if cause == "gradient" else "loss")
    users = micro_task.windows("train")["user_id"].tolist()
    assert report["batch"] == {"rows": batches[step], "users": [users[r] for r in batches[step]]}
    assert report["windows"] and {w["row"] for w in report["windows"]} <= set(batches[step])
    assert all(w["user"] == users[w["row"]] for w in report["windows"])
    first = report["windows"][0]["user"]
    for text in (
        "of 'bear' is ",
        f"at step {step} ",
        f"is {cause}",
        f"of users {first}",
        "nothing was updated",
    ):
        assert text in run.error
    assert "\n" not in run.error


def test_the_message_says_what_to_try(single) -> None:
    assert "-inf at step 0" in single["regularizer"].error
    assert single["regularizer"].error.endswith("lower objective.lam or raise objective.xi")
    assert "train.lr" in single["gradient"].error
    assert POISONED in single["weights"].error and "init_adapter" in single["weights"].error


def test_only_the_windows_that_are_to_blame_are_named(make_run, micro_task, batches) -> None:
    """NaN in the embedding of a token: the windows that read it, and no others."""
    config = make_run()
    loop = Loop(config, micro_task, rank=0, world=1, device=torch.device("cpu"), log=dict)
    token = loop.examples[batches[0][2]].prompt[-3]
    hit = [row for row in batches[0] if token in loop.examples[row].prompt + loop.examples[row].answer[:-1]]
    words = loop.model.get_base_model().get_input_embeddings()
    with torch.no_grad():  # the output projection may share the weights, so not in place
        words.register_forward_hook(
            lambda _, ids, out: out.masked_fill((ids[0] == token)[..., None], torch.nan)
        )
    with pytest.raises(DivergedError) as caught:
        loop.run_epoch()
    report = caught.value.report
    assert report["term"] == "logits" and [w["row"] for w in report["windows"]] == hit
    assert hit


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("cause", ["loss", "gradient"])
def test_two_workers_stop_together_without_an_update(cause, engine, pair, single, folder) -> None:
    run, alone = pair[f"{cause}-{engine}"], single[cause]
    for name in ("step", "what", "term", "batch", "lr", "epoch"):
        assert run.report[name] == alone.report[name], name
    assert [w["row"] for w in run.report["windows"]] == [w["row"] for w in alone.report["windows"]]
    assert len(run.rows) == len(alone.rows)
    saved, wanted = (adapter_of(folder / n / "diverged") for n in (f"{cause}-{engine}", f"1-{cause}"))
    for name, weight in wanted.items():
        assert weight.isfinite().all()
        torch.testing.assert_close(saved[name], weight, rtol=1e-3, atol=1e-6, msg=name)
    steps = load_file(folder / f"{cause}-{engine}" / "diverged" / "optimizer.safetensors")["step"]
    assert float(steps) == run.report["step"]


def test_without_clipping_too(pair) -> None:
    assert pair["gradient-zero2-unclipped"].report["term"] == "gradient"


def test_one_bad_worker_stops_both(pair, folder) -> None:
    run = pair["weights"]
    assert (
        run.rows == []
        and run.report["term"] == "weights"
        and run.report["weights"] == [name for name in run.report["weights"] if name.endswith(POISONED)]
    )
    assert 0 < len(run.report["windows"]) < len(run.report["batch"]["rows"])  # those of that worker


def test_the_state_before_the_update_is_a_checkpoint(make_run, micro_task, single, folder) -> None:
    """What was saved after the divergence at step 1 is what one good step leads to."""
    config = make_run(CAUSES["gradient"])
    parts: dict[str, Any] = {"rank": 0, "world": 1, "device": torch.device("cpu"), "log": dict}
    good = Loop(config, micro_task, **parts)
    plan = plan_epoch(good.lengths, config.train.batch_size, seed=config.train.seed, epoch=0)
    good.train_step(0, plan[0])
    good.save(folder / "good")
    for name, weight in adapter_of(folder / "good").items():
        assert torch.equal(adapter_of(folder / "1-gradient" / "diverged")[name], weight)
    again = Loop(config, micro_task, **parts)
    again.restore(folder / "1-gradient" / "diverged")
    assert again.epoch == 0
    with pytest.raises(DivergedError):
        again.train_step(1, plan[1])


def test_a_run_saved_before_its_first_update_goes_on_like_a_new_one(make_run, micro_task, folder) -> None:
    losses = []
    for restored in (False, True):
        rows: list[dict[str, Any]] = []
        loop = Loop(make_run(), micro_task, rank=0, world=1, device=torch.device("cpu"), log=rows.append)
        if restored:
            loop.restore(folder / "fresh")
        else:
            loop.save(folder / "fresh")
        loop.run_epoch()
        losses.append([row["loss"] for row in rows])
    assert losses[0] == losses[1]


def test_the_error_survives_pickling_and_its_report_is_json(single, tmp_path) -> None:
    report = single["regularizer"].report | {"saved": "s3://bucket/run/diverged"}
    error = pickle.loads(pickle.dumps(DivergedError.of(report)))
    assert error.report == report and "saved in s3://bucket/run/diverged" in str(error)
    write_report(tmp_path, report)
    assert json.loads((tmp_path / "diverged.json").read_text()) == report
    assert report["value"] == "-inf" and report["metrics"]["regularizer"] == "-inf"


def test_long_lists_are_cut_in_the_message_only(single) -> None:
    many = [{"row": i, "user": 100 + i, "term": "nll"} for i in range(25)]
    text = describe(single["loss"].report | {"windows": many})
    assert "users 100, 101, 102, 103, 104, 105, 106, 107, 108, 109 and 15 more" in text
    nowhere = describe(single["loss"].report | {"windows": [], "batch": {"rows": [1], "users": [77]}})
    assert "the batch has users 77" in nowhere
