"""SPRec in the loop: which loss, windows, reference and answers each epoch has, also after an interruption
and on several workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bearray.batching import left_pad
from bearray.config import override
from bearray.decoding import constrained_beam_search
from bearray.errors import ConfigError, ResumeError
from bearray.objectives import Draw
from bearray.training.checks import check_objective
from bearray.training.loop import Loop
from tests.training.workers import Job, Outcome, run_job, run_jobs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS = 5
SPREC = {
    "objective.name": "sprec",
    "objective.sft_epochs": 1,
    "objective.round_windows": 10,
    "train.epochs": EPOCHS,
    "train.lr": 0.02,
}
"""22 windows of SFT, then two iterations of 10 windows; 3, 2, 2, 2 and 2 steps."""
ENGINES: dict[str, dict[str, Any]] = {
    "ddp": {},
    "zero3": {"train.engine": "deepspeed", "train.zero_stage": 3},
}
DROPOUT = {"model.lora_dropout": 0.3}
COMMON = {"loss", "nll", "violation", "margin", "lr", "epoch"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rounds")


@pytest.fixture(scope="module")
def run(make_run, folder) -> Outcome:
    """One process, one micro-batch a step."""
    return run_job(make_run(SPREC), Job("one", epochs=EPOCHS, save=True), folder)


@pytest.fixture(scope="module")
def pair(make_run, folder) -> dict[str, Outcome]:
    """Two workers, two micro-batches a step; some continue between (ii) and (iii)."""
    few = {**SPREC, "train.micro_batch_size": 2}
    jobs = [Job(e, {**few, **c}, EPOCHS, save=True) for e, c in ENGINES.items()]
    jobs.append(Job("again", {**few, **ENGINES["zero3"]}, EPOCHS, restore=folder / "ddp" / "2"))
    return run_jobs(make_run(), jobs, folder, world=2)


def weights(folder: Path, kind: str) -> dict[str, torch.Tensor]:
    """Adapter or reference of a checkpoint, by the same names."""
    names = {"adapter": "adapter/adapter_model.safetensors", "reference": "reference.safetensors"}
    return {n.replace(".reference.", "."): w for n, w in load_file(folder / names[kind]).items()}


def assert_same(ours: Outcome, theirs: Outcome, *, first_step: int = 0, atol: float) -> None:
    assert ours.error is None and len(ours.rows) == len(theirs.rows) - first_step
    for our, their in zip(ours.rows, theirs.rows[first_step:], strict=True):
        assert our.keys() == their.keys()
        assert (our["step"], our["round"]) == (their["step"], their["round"])
        for name in our.keys() - {"kind", "round", "tokens_per_s"}:
            assert our[name] == pytest.approx(their[name], rel=atol, abs=atol), (our["step"], name)
    for kind in ("adapter", "reference"):
        mine, wanted = getattr(ours, kind), getattr(theirs, kind)
        assert mine.keys() == wanted.keys() and mine
        for name, weight in wanted.items():
            torch.testing.assert_close(mine[name], weight, rtol=0, atol=atol, msg=name)


def test_rows_follow_the_rounds(run) -> None:
    assert [r["round"] for r in run.rows] == ["sft"] * 5 + ["dpo"] * 2 + ["sft"] * 2 + ["dpo"] * 2
    assert [r["step"] for r in run.rows] == list(range(11))
    assert [r["epoch"] for r in run.rows] == pytest.approx([1 / 3, 2 / 3, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5])
    assert [r["lr"] for r in run.rows][-1] == pytest.approx(0.02 / 9)  # linear over all 11 steps
    for row in run.rows:
        assert row.keys() >= COMMON
        assert ("reward_margin" in row) == (row["round"] == "dpo")
    for step in (5, 9):  # where a round of DPO begins, the policy is its own reference
        assert run.rows[step]["reward_margin"] == pytest.approx(0, abs=1e-5)
        assert run.rows[step]["loss"] == pytest.approx(np.log(2), abs=1e-5)
        assert abs(run.rows[step + 1]["reward_margin"]) > 1e-4


def test_the_reference_is_the_model_after_sft(run, folder) -> None:
    for dpo in (3, 5):
        reference = weights(folder / "one" / str(dpo), "reference")
        for name, weight in weights(folder / "one" / str(dpo - 1), "adapter").items():
            assert torch.equal(reference[name], weight), name
        after = weights(folder / "one" / str(dpo), "adapter")
        assert any(not torch.equal(after[name], weight) for name, weight in reference.items())
    # the SFT round of the next iteration leaves it alone
    before, later = (weights(folder / "one" / str(epoch), "reference") for epoch in (3, 4))
    assert all(torch.equal(before[name], weight) for name, weight in later.items())


def test_both_rounds_of_an_iteration_have_its_windows_and_titles(make_run, micro_task, run, folder) -> None:
    config = make_run({**SPREC, "train.lr": 0.2})  # so that an epoch changes what the model likes best
    loop = Loop(config, micro_task, rank=0, world=1, device=torch.device("cpu"), log=dict)
    batches: dict[int, list[int]] = {epoch: [] for epoch in range(EPOCHS)}
    answers: dict[int, dict[int, int]] = {epoch: {} for epoch in range(EPOCHS)}
    collate = loop.collate

    def note(rows: np.ndarray, others: Any, loss: Any, *, hybrid: bool) -> Any:
        batches[loop.epoch] += rows.tolist()
        for row, own in zip(rows.tolist(), others or [], strict=False):
            assert len(own) == 1
            answers[loop.epoch][row] = own[0].title
        return collate(rows, others, loss, hybrid=hybrid)

    loop.collate = note  # type: ignore[assignment]
    starts = {}
    for epoch in range(EPOCHS):
        starts[epoch] = weights_now(loop)
        loop.run_epoch()
    assert sorted(batches[0]) == list(range(22))
    drawn = [Draw(i, 10).rows(22, seed=config.train.seed).tolist() for i in (0, 1)]
    assert drawn[0] != drawn[1]
    later = []
    for number, sft in enumerate((1, 3)):
        assert sorted(batches[sft]) == sorted(batches[sft + 1]) == drawn[number]
        assert answers[sft] == {} and sorted(answers[sft + 1]) == drawn[number]
        best = best_wrong_titles(loop, starts[sft], drawn[number])
        assert answers[sft + 1] == best
        later.append(best_wrong_titles(loop, starts[sft + 1], drawn[number]) != best)
    assert any(later)  # so these titles were made before SFT, not after


def weights_now(loop: Loop) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in loop.model.named_parameters() if p.requires_grad}


def best_wrong_titles(loop: Loop, adapter: dict[str, torch.Tensor], rows: list[int]) -> dict[int, int]:
    """By an adapter: of each window the first of two beams that is not the target."""
    loop.model.load_state_dict(adapter, strict=False)
    found = {}
    for row in rows:
        ids, mask = left_pad([loop.examples[row].prompt], 0)
        beams = constrained_beam_search(loop.model, ids, mask, loop.trie, beam_width=2)
        found[row] = next(t for t in beams.title_ids[0].tolist() if t != loop.examples[row].target_title)
    return found


def test_answers_are_kept_as_long_as_they_are_needed(run, folder) -> None:
    for epoch in range(1, EPOCHS + 1):
        assert (folder / "one" / str(epoch) / "answers.safetensors").exists() == (epoch in (2, 4)), epoch
    assert load_file(folder / "one" / "2" / "answers.safetensors")["titles"].shape == (10, 1)


@pytest.mark.parametrize("changes", [{}, DROPOUT], ids=["plain", "dropout"])
def test_a_run_that_stops_after_any_epoch_continues_as_if_it_had_not(changes, make_run, folder) -> None:
    config = make_run({**SPREC, **changes})
    whole = run_job(config, Job(f"whole-{len(changes)}", epochs=EPOCHS, save=True), folder)
    for epoch, step in zip(range(1, EPOCHS), (3, 5, 7, 9), strict=True):
        job = Job(f"again-{epoch}", epochs=EPOCHS, restore=folder / f"whole-{len(changes)}" / str(epoch))
        assert_same(run_job(config, job, folder), whole, first_step=step, atol=1e-7)


@pytest.mark.parametrize("engine", ENGINES)
def test_two_workers_with_any_engine_make_the_same_run(engine, pair, run, folder) -> None:
    assert_same(pair[engine], run, atol=2e-4)
    ours, theirs = (load_file(folder / n / "4" / "answers.safetensors") for n in (engine, "one"))
    assert torch.equal(ours["rows"], theirs["rows"]) and torch.equal(ours["titles"], theirs["titles"])


def test_two_workers_continue_between_sft_and_dpo(pair, run) -> None:
    assert_same(pair["again"], run, first_step=5, atol=2e-4)


def test_a_checkpoint_without_the_answers_is_refused(make_run, micro_task, run, folder, tmp_path) -> None:
    loop = Loop(make_run(SPREC), micro_task, rank=0, world=1, device=torch.device("cpu"), log=dict)
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in (folder / "one" / "2").rglob("*"):
        if file.is_file() and file.name != "answers.safetensors":
            target = broken / file.relative_to(folder / "one" / "2")
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(file.read_bytes())
    with pytest.raises(ResumeError, match=r"answers\.safetensors is missing"):
        loop.restore(broken)
    state = json.loads((broken / "state.json").read_text())
    del state["files"]  # as if it had been saved without answers
    (broken / "state.json").write_text(json.dumps(state))
    with pytest.raises(ResumeError, match=r"lacks the answers that epoch 3 trains with"):
        loop.restore(broken)
    (broken / "answers.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ResumeError, match=r"answers\.safetensors"):
        loop.restore(broken)


def test_too_few_epochs_are_refused_before_training(make_run, micro_task) -> None:
    with pytest.raises(ConfigError, match=r"train\.epochs is 1,"):
        check_objective(override(make_run(SPREC), {"train.epochs": 1}), micro_task)
    check_objective(make_run(SPREC), micro_task)


def test_training_learns_the_targets_and_to_prefer_them(make_run, folder) -> None:
    wide = {"model.lora_r": 8, "model.lora_targets": ["q_proj", "v_proj", "up_proj", "down_proj"]}
    config = make_run(
        {**SPREC, **wide, "train.epochs": 9, "objective.round_windows": None, "objective.beta": 1.0}
    )
    rows = run_job(config, Job("learns", epochs=9), folder).rows
    sft = [row["nll"] for row in rows if row["round"] == "sft"]
    assert sum(sft[-3:]) < sum(sft[:3])
    dpo = [row for row in rows if row["round"] == "dpo"]
    assert all(
        row["reward_margin"] > 0 for row in dpo if row["step"] % 3
    )  # a round is 3 steps; the first is at 0
