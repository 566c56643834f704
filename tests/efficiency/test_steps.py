"""Training steps of several objectives on one model: passes exactly as the formulas need them, and a start
that is the same for everybody."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bearray.batching import collate, plan_epoch, split_batch
from bearray.config import override
from bearray.efficiency.core import Clock, count_passes
from bearray.efficiency.counters import counting
from bearray.efficiency.steps import TrainingContenders
from bearray.efficiency.variants import objective_variants
from bearray.training.engine import trainable

CPU = torch.device("cpu")
SIZES = {"objective.negatives": 2, "train.batch_size": 4, "train.micro_batch_size": 4, "train.epochs": 4}


@pytest.fixture(scope="module")
def build(make_run: Any, micro_task: Any) -> Any:
    def made(*names: str, **changes: Any) -> TrainingContenders:
        run = make_run({**SIZES, **changes})
        run = override(run, {"objective.beam_width": 3})
        objectives = objective_variants(names, run)
        return TrainingContenders(run, objectives, micro_task, steps=2, rank=0, world=1, device=CPU)

    return made


def test_passes_are_those_that_the_formulas_need(build: Any) -> None:
    """SFT, MSL, BEAR: one pass forward and back. S-DPO and DPO: the reference's pass before it."""
    contenders = build("sft", "msl", "bear", "igd", "d2lr", "sdpo", "dpo", "beam_simulation")
    counts = count_passes(contenders, Clock(CPU))
    for name in ("sft", "msl", "bear", "igd", "d2lr"):
        assert (counts[name]["forward"], counts[name]["backward"]) == ([1, 1], [1, 1]), name
    for name in ("sdpo", "dpo"):
        assert (counts[name]["forward"], counts[name]["backward"]) == ([2, 2], [1, 1]), name
    assert min(counts["beam_simulation"]["forward"]) > 1  # its search, one pass a level or fewer
    assert counts["beam_simulation"]["backward"] == [1, 1]


def test_micro_batches_are_passes_of_their_own(build: Any) -> None:
    contenders = build("sft", "sdpo", **{"train.micro_batch_size": 2})
    counts = count_passes(contenders, Clock(CPU))
    assert (counts["sft"]["forward"], counts["sft"]["backward"]) == ([2, 2], [2, 2])
    assert (counts["sdpo"]["forward"], counts["sdpo"]["backward"]) == ([4, 4], [2, 2])


def test_tokens_fed_are_those_of_the_batch(build: Any, micro_task: Any) -> None:
    contenders = build("sft")
    counts = count_passes(contenders, Clock(CPU))["sft"]
    examples, pad = micro_task.examples(), micro_task.pad_token_id
    wanted = []
    for number in range(2):
        (part,) = split_batch(contenders.batches[number], num_workers=1, rank=0, rounds=1)
        wanted.append(collate([examples[i] for i in part], pad).input_ids.numel())
    assert counts["tokens"] == wanted


def test_passes_of_dropped_graphs_are_no_backward_passes(build: Any) -> None:
    contenders = build("sft")
    body = contenders.body("sft")
    with counting(body, pad_token_id=0) as passes:
        ids = torch.tensor([[1, 2, 0]])
        body(input_ids=ids)  # with gradients, never used
        with torch.no_grad():
            body(input_ids=ids)
        body(input_ids=ids).last_hidden_state.sum().backward()
    body(input_ids=ids)
    assert (passes.forward, passes.backward, passes.tokens, passes.padding) == (3, 1, 9, 3)


def test_every_turn_starts_from_the_same_adapter(build: Any) -> None:
    contenders = build("sft", "sdpo")
    start = {n: p.detach().clone() for n, p in trainable(contenders.model).items()}
    for label in ("sft", "sdpo", "sft"):
        pieces = contenders.begin(label, 0)
        for name, parameter in trainable(contenders.model).items():
            torch.testing.assert_close(parameter.detach(), start[name], rtol=0, atol=0)
        for work in pieces:
            work()
        moved = [not torch.equal(p.detach(), start[n]) for n, p in trainable(contenders.model).items()]
        assert any(moved)


def test_an_objective_that_adapts_starts_anew(make_run: Any, micro_task: Any) -> None:
    run = make_run(SIZES)
    objectives = objective_variants(["msl"], override(run, {"objective.adaptive": True}))
    contenders = TrainingContenders(run, objectives, micro_task, steps=2, rank=0, world=1, device=CPU)
    objective = contenders.loops["msl"].objective
    before = objective.state_dict()
    for work in contenders.begin("msl", 0):
        work()
    assert objective.state_dict() != before
    contenders.begin("msl", 1)
    assert objective.state_dict() == before


def test_each_turn_has_the_dropout_of_its_objective(build: Any) -> None:
    """Without dropout, objective (3.1) takes its prompts from the training pass: fewer tokens are fed."""
    labels = ("sft", "sft:lora_dropout=0", "beam_simulation", "beam_simulation:lora_dropout=0")
    contenders = build(*labels, **{"model.lora_dropout": 0.2})
    counts = count_passes(contenders, Clock(CPU))
    assert counts["sft"]["tokens"] == counts["sft:lora_dropout=0"]["tokens"]
    read_again, taken_over = (sum(counts[label]["tokens"]) for label in labels[2:])
    assert taken_over < 0.7 * read_again
    for label, rate in zip(labels, (0.2, 0.0, 0.2, 0.0), strict=True):
        contenders.begin(label, 0)
        rates = [m.p for m in contenders.model.modules() if isinstance(m, torch.nn.Dropout) and m.training]
        assert set(rates) == ({rate} if rate else set()), label


def test_all_objectives_take_the_same_batches_and_rounds_take_others(
    build: Any, micro_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    contenders = build("sft", "bear")
    lengths = [len(e.prompt) + len(e.answer) for e in micro_task.examples()]
    plan = [b for b in plan_epoch(lengths, 4, seed=42, epoch=0) if len(b) == 4]
    taken: dict[str, list[list[int]]] = {}
    for label, loop in contenders.loops.items():
        monkeypatch.setattr(
            loop, "train_step", lambda s, b, o=label: taken.setdefault(o, []).append(b.tolist())
        )
    for label in contenders.labels:
        for number in range(4):
            for work in contenders.begin(label, number):
                work()
    assert taken["sft"] == taken["bear"]
    assert taken["sft"][: len(plan)] == [b.tolist() for b in plan]
    assert taken["sft"][len(plan)] == plan[0].tolist()  # from the start again
    assert contenders.size(1) == sum(lengths[i] for batch in plan[2:4] for i in batch)


def test_a_schedule_of_several_losses_is_timed_in_its_proportion(build: Any) -> None:
    """SPRec in 4 epochs: 2 of SFT before, then one of SFT and one of DPO with generated negatives."""
    contenders = build("sft", "sprec")
    assert contenders.weights("sft") == [0.5, 0.5]
    assert contenders.weights("sprec") == pytest.approx([0.375, 0.375, 0.125, 0.125])
    counts = count_passes(contenders, Clock(CPU))["sprec"]
    assert counts["forward"][:2] == [1, 1] and min(counts["forward"][2:]) > 2
    assert counts["backward"] == [1, 1, 1, 1]
    assert contenders.steps_per_epoch("sprec") == contenders.steps_per_epoch("sft") == 6
