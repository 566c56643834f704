"""The memory that is planned for, against what PyTorch allocates in real training steps, and by hand."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bearray.config import ModelConfig, ObjectiveConfig, RunConfig, override
from bearray.objectives import OBJECTIVES
from bearray.planning import CARDS, Work
from bearray.planning.activations import MicroBatch, Numbers, activations
from bearray.planning.cards import described
from bearray.planning.memory import (
    Demand,
    decoding_memory,
    longest_batch,
    room,
    trained_weights,
    training_memory,
)
from bearray.planning.shapes import SHAPES, shape_of
from bearray.task import load_task
from bearray.training.engine import DDPEngine
from bearray.training.start import new_model

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def _benchmark() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("memory_plan")
    finally:
        sys.path.remove(str(BENCHMARKS))


bench = _benchmark()
LOW, HIGH = 0.97, 1.15
"""Computed over measured: hardly ever too little, and not much too much."""
SMALL = bench.Case(rows=4, prompt=60, shared=20, layers=3)


@pytest.mark.parametrize(
    "case",
    [
        SMALL,
        replace(SMALL, objective="bear", family="qwen2", shared=0, kv_heads=4),
        replace(SMALL, checkpointing=True, layers=6, dtype="bfloat16"),
        replace(SMALL, family="qwen3", objective="bear", checkpointing=True, rows=8),
        replace(SMALL, vocabulary=24_000, rows=1),
        replace(SMALL, targets=bench.ALL_LAYERS, dropout=0.0, family="qwen3"),
        replace(SMALL, objective="sdpo", others=3, dtype="bfloat16"),
    ],
    ids=lambda c: f"{c.family}-{c.objective}-{'again' if c.checkpointing else 'kept'}-{c.dtype}",
)
def test_activations_are_those_of_a_real_step(case: Any) -> None:
    outcome = bench.run(case, torch.device("cpu"))
    assert LOW <= outcome.ratio <= HIGH, (outcome.estimated, outcome.measured)


def test_the_committed_comparison_is_within_the_same_bounds() -> None:
    import json

    content = json.loads((BENCHMARKS / "results" / "memory-plan-cpu.json").read_text(encoding="utf-8"))
    assert len(content["cases"]) == len(bench.CASES)
    assert all(LOW <= case["ratio"] <= HIGH for case in content["cases"])


RUN = override(RunConfig(), {"objective.name": "sft"})
LLAMA = SHAPES["llama-3.2-3b"]
H100 = CARDS["h100"]


def test_what_is_trained_takes_what_an_optimiser_takes(make_run: Any) -> None:
    """Of the test's own small run: adapter, gradients and moments, counted on the real thing."""
    config = make_run({"objective.name": "sft", "model.lora_r": 4})
    model = new_model(config, torch.device("cpu"), load_task(config))
    engine = DDPEngine(model, config.train, device=torch.device("cpu"))
    for parameter in engine.parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    adapter = sum(p.nbytes for p in engine.parameters.values())
    engine.optimizer.step()
    moments = sum(s["exp_avg"].nbytes + s["exp_avg_sq"].nbytes for s in engine.optimizer.state.values())
    planned = training_memory(shape_of(config.model.base), config, Work(), CARDS["v100"])
    assert (planned.adapter, planned.gradients, planned.optimizer) == (adapter, adapter, moments)
    frozen = sum(p.nbytes for p in model.parameters() if not p.requires_grad)
    assert planned.weights == frozen


def test_stages_share_out_what_they_say() -> None:
    def of(stage: int, workers: int = 4) -> Any:
        changed = override(RUN, {"train.zero_stage": stage, "train.num_workers": workers})
        return training_memory(LLAMA, changed, Work(), H100)

    trained = trained_weights(LLAMA, RUN.model)
    assert of(0).optimizer == 8 * trained
    assert of(1).optimizer == of(2).optimizer == 12 * -(-trained // 4)  # moments and a copy of the weights
    assert of(2).weights == of(0).weights == 2 * LLAMA.weights
    assert of(3).weights == -(-2 * LLAMA.weights // 4) + 2 * 10**9  # what is gathered at a time
    assert of(3, workers=1).weights == 2 * LLAMA.weights
    assert of(2).activations == of(3).activations


def test_backbones_with_projectors_train_more() -> None:
    from torch import nn

    hidden = LLAMA.hidden
    llara = nn.Sequential(nn.Linear(64, hidden), nn.GELU(), nn.Linear(hidden, hidden))
    extra = trained_weights(LLAMA, replace(RUN.model, backbone="llara")) - trained_weights(LLAMA, RUN.model)
    assert extra == sum(p.numel() for p in llara.parameters())
    assert trained_weights(LLAMA, replace(RUN.model, backbone="allmrec", lora_r=0)) > 2 * hidden**2


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_a_demand_and_a_memory(name: str) -> None:
    config = override(RUN, {"objective.name": name})
    demand = Demand.of(config.objective)
    sft = training_memory(LLAMA, RUN, Work(), H100)
    own = training_memory(LLAMA, config, Work(), H100)
    if demand.answers > 1 or demand.without_history:
        assert own.activations > sft.activations
    assert own.adapter == sft.adapter * (1 + demand.reference)


def test_objectives_ask_for_what_they_need() -> None:
    assert Demand.of(ObjectiveConfig(name="sft")) == Demand(
        answers=1, branching=False, candidates_only=False, reference=False, without_history=False
    )
    assert Demand.of(ObjectiveConfig(name="sdpo", negatives=5)).answers == 6
    assert Demand.of(ObjectiveConfig(name="bear")).candidates_only
    assert not Demand.of(ObjectiveConfig(name="bear", vocabulary="full")).candidates_only
    assert Demand.of(ObjectiveConfig(name="cft")).without_history
    assert Demand.of(ObjectiveConfig(name="dpo")).reference
    assert not Demand.of(ObjectiveConfig(name="dpo", reference="base")).reference


def test_a_longest_batch_by_hand() -> None:
    work = Work(prompt_tokens=80, shared_tokens=30, longest_prompt=100, longest_answer=20)
    plain = Demand.of(ObjectiveConfig(name="sft"))
    batch = longest_batch(LLAMA, work, plain, 4)
    assert (batch.width, batch.tokens, batch.predicted, batch.columns) == (89, 386, 80, None)
    alone = longest_batch(LLAMA, work, plain, 1)
    assert (alone.shared, alone.tokens, alone.masked) == (0, 119, False)
    bear = longest_batch(LLAMA, work, Demand.of(ObjectiveConfig(name="bear")), 4)
    assert bear.columns == 1_500 + 4 * 80
    longer = longest_batch(LLAMA, replace(work, longest_prompt=200), plain, 4)
    assert longer.tokens == 386 + 4 * 100


def test_checkpointing_and_smaller_batches_take_less() -> None:
    numbers, settings = Numbers(element=2, fused_dropout=True), ModelConfig()
    batch = MicroBatch(rows=16, shared=140, width=195, tokens=3_260, predicted=512, choices=1_500)
    kept, again = (
        activations(LLAMA, batch, settings, numbers, checkpointing=flag).peak for flag in (False, True)
    )
    assert again < kept / 5
    fewer = replace(batch, rows=8, tokens=1_700, predicted=256)
    assert activations(LLAMA, fewer, settings, numbers, checkpointing=False).peak < 0.55 * kept
    floats = activations(LLAMA, batch, settings, replace(numbers, element=4), checkpointing=False)
    assert floats.peak > kept


def test_a_decoder_fills_what_weights_leave() -> None:
    large, small = (decoding_memory(LLAMA, RUN, Work(), CARDS[name]) for name in ("h200", "l4"))
    assert large.users == 256 > small.users > 32 and large.user == small.user
    assert small.total < CARDS["l4"].memory < 2 * small.total
    none = decoding_memory(SHAPES["llama-3-8b"], RUN, Work(), described(None, 12, 50))
    assert none.users == 0 and none.total > 12e9
    one = decoding_memory(LLAMA, override(RUN, {"decoding.batch_size": 7}), Work(), H100)
    assert one.users == 7


def test_float32_takes_twice_the_weights_and_cards_keep_some_room() -> None:
    floats = training_memory(LLAMA, RUN, Work(), CARDS["t4"])
    assert floats.weights == 2 * training_memory(LLAMA, RUN, Work(), H100).weights
    asked = override(RUN, {"train.precision": "fp32"})
    assert training_memory(LLAMA, asked, Work(), H100).weights == floats.weights
    assert room(H100) == int(79e9 * 0.92)
