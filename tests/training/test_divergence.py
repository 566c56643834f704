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
SEARCHING: dict[str, dict[str, Any]] = {
    "rollouts": {"objective.name": "best_of_n", "objective.rollouts": 3},
    "samples": {"objective.name": "flower", "objective.personalised": False},
    "negatives": {"objective.name": "dpo", "objective.negative_kind": "self"},
    "draw": {"objective.name": "sprec", "objective.sft_epochs": 0, "objective.round_windows": 7},
    "thresholds": {"objective.name": "beam_simulation"},
}
"""An objective of each kind that searches while it is trained: before each step, for an epoch's windows
before it begins, or beside the training pass."""
TERMS = {"draw": "negatives", "thresholds": "logits"}
"""What cannot be made, where it is called otherwise: (3.1)'s search comes after the logits."""


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
        *(Job(f"weights-{kind}", {**few, **changes}, poisoned=1) for kind, changes in SEARCHING.items()),
        Job("rollouts-zero3", {**SEARCHING["rollouts"], **ENGINES["zero3"], **few}, blind=1),
    ]
    return run_jobs(make_run(), jobs, folder, world=2)


@pytest.fixture(scope="module")
def batches(make_run, micro_task) -> list[list[int]]:
    """Rows of the first epoch's batches."""
    config = make_run().train
    lengths = [len(e.prompt) + len(e.answer) for e in micro_task.examples()]
    plan = plan_epoch(lengths, config.batch_size, seed=config.seed, epoch=0)
    return [sorted(int(row) for row in batch) for batch in plan]


def loop_of(config: Any, task: Any) -> Loop:
    return Loop(config, task, rank=0, world=1, device=torch.device("cpu"), log=dict)


def poison(loop: Loop, *tokens: int) -> None:
    """NaN in tokens' embeddings; the output projection may share the weights, so not in place."""
    words, bad = loop.model.get_base_model().get_input_embeddings(), torch.tensor(tokens)
    words.register_forward_hook(
        lambda _, ids, out: out.masked_fill(torch.isin(ids[0], bad)[..., None], torch.nan)
    )


def token_of_few(loop: Loop, rows: list[int]) -> tuple[int, list[int]]:
    """A token that some of the windows' prompts hold, and no title but its last token, which no search has to
    read; and these windows."""
    inside = {t for title in loop.task.catalog.tokens for t in title[:-1]}
    for row in rows:
        for token in loop.examples[row].prompt:
            hit = [r for r in rows if token in loop.examples[r].prompt]
            if token not in inside and len(hit) < len(rows):
                return token, hit
    raise AssertionError("no such token")


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
    loop = loop_of(make_run(), micro_task)
    token = loop.examples[batches[0][2]].prompt[-3]
    hit = [row for row in batches[0] if token in loop.examples[row].prompt + loop.examples[row].answer[:-1]]
    poison(loop, token)
    with pytest.raises(DivergedError) as caught:
        loop.run_epoch()
    report = caught.value.report
    assert report["term"] == "logits" and [w["row"] for w in report["windows"]] == hit
    assert hit


@pytest.mark.parametrize("kind", SEARCHING)
def test_a_search_that_meets_nan_names_its_windows(kind, make_run, micro_task, batches) -> None:
    """NaN in the embedding of a token of one history, which no search reads in another window."""
    loop = loop_of(make_run(SEARCHING[kind]), micro_task)
    draw = loop.timeline.rounds[0].draw
    rows = batches[0] if draw is None else draw.rows(len(loop.examples), seed=loop.config.train.seed).tolist()
    token, hit = token_of_few(loop, rows)
    poison(loop, token)
    with pytest.raises(DivergedError) as caught:
        loop.run_epoch()
    report, term = caught.value.report, TERMS.get(kind, kind)
    assert report["term"] == term and report["step"] == 0
    assert report["what"] == ("loss" if kind == "thresholds" else term)
    assert [w["row"] for w in report["windows"]] == hit
    assert report["batch"]["rows"] == rows
    json.dumps(report, allow_nan=False)
    for text in (f"of '{loop.config.objective.name}' ", f"users {report['windows'][0]['user']}", "train.lr"):
        assert text in str(caught.value)


def test_a_nan_in_the_search_alone_makes_thresholds_nan(make_run, micro_task, batches) -> None:
    """Tokens that the batch does not hold, but the beams: the training pass is finite."""
    loop = loop_of(make_run(SEARCHING["thresholds"]), micro_task)
    read = {t for row in batches[0] for t in loop.examples[row].prompt + loop.examples[row].answer}
    poison(loop, *({t for title in micro_task.catalog.tokens for t in title} - read))
    with pytest.raises(DivergedError) as caught:
        loop.run_epoch()
    report = caught.value.report
    assert report["term"] == "thresholds" and {w["row"] for w in report["windows"]} <= set(batches[0])
    assert report["windows"] and str(caught.value).endswith("lower train.lr")


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


@pytest.mark.parametrize("kind", SEARCHING)
def test_one_worker_that_cannot_search_stops_both(kind, pair, folder) -> None:
    run = pair[f"weights-{kind}"]
    report = run.report
    assert run.rows == [] and report["term"] == "weights" and POISONED in run.error
    assert report["what"] == ("loss" if kind == "thresholds" else TERMS.get(kind, kind))
    assert 0 < len(report["windows"]) < len(report["batch"]["rows"])  # those of that worker
    assert adapter_of(folder / f"weights-{kind}" / "diverged")


def test_a_search_stops_both_workers_where_weights_are_gathered(pair, folder) -> None:
    run = pair["rollouts-zero3"]
    assert run.report["what"] == run.report["term"] == "rollouts" and run.rows == []
    assert 0 < len(run.report["windows"]) < len(run.report["batch"]["rows"])
    saved = adapter_of(folder / "rollouts-zero3" / "diverged")
    assert saved and all(weight.isfinite().all() for weight in saved.values())


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
