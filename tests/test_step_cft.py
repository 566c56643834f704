"""CFT through the training step: each answer behind the prompt with and without the history."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bearray.backbones.load import load_model
from bearray.backbones.lora import add_lora
from bearray.batching import collate
from bearray.forward import use_tree_attention
from bearray.objectives.cft import CFT, position_weights
from bearray.step import TrainStep
from tests.adapters import stir


@pytest.fixture(params=["tree", "padded"])
def model(micro_task, request) -> Any:
    base = load_model(micro_task.config.model.base, device="cpu")
    if request.param == "tree":
        assert use_tree_attention(base, "cpu")
    return stir(add_lora(base, micro_task.config.model))


def plain_logits(model: Any, prompt: list[int], answer: list[int]) -> torch.Tensor:
    return model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]


def test_equals_plain_rows(model, micro_task) -> None:
    blank = micro_task.backbone.encode_without_history()
    examples = micro_task.examples()[:4]
    step = TrainStep(model, CFT(contrast=0.8), micro_task.catalog.trie, micro_task.eos_token_id)
    output = step(collate(examples, micro_task.pad_token_id, without_history=blank))
    total, weight = 0.0, 0.0
    for e in examples:
        target = torch.tensor(e.answer)
        known, unknown = plain_logits(model, e.prompt, e.answer), plain_logits(model, blank, e.answer)
        loss = torch.nn.functional.cross_entropy(known, target, reduction="none")
        loss = loss + 0.8 * torch.nn.functional.cross_entropy(known - unknown, target, reduction="none")
        omega = position_weights(torch.arange(float(len(target))), torch.tensor(len(target)), 0.25)
        total, weight = total + (omega * loss).sum(), weight + float(omega.sum())
    assert float(output.weight) == pytest.approx(weight, rel=1e-5)
    torch.testing.assert_close(output.total, total, rtol=1e-5, atol=1e-4)
    weights = [p for p in model.parameters() if p.requires_grad]
    ours, theirs = (torch.autograd.grad(loss, weights) for loss in (output.total, total))
    scale = max(float(g.abs().max()) for g in theirs)
    assert scale > 1e-3
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-3, atol=1e-4 * scale)


def test_the_prompt_without_history_is_read_once(micro_task) -> None:
    blank = micro_task.backbone.encode_without_history()
    examples = micro_task.examples()[:4]
    batch = collate(examples, micro_task.pad_token_id, without_history=blank)
    other = batch.without_history
    assert other.tokens == len(blank) + sum(len(e.answer) - 1 for e in examples)
    for name in ("targets", "nodes", "instance", "step"):
        assert torch.equal(getattr(batch, name), getattr(other, name)), name
    nothing = collate([], micro_task.pad_token_id, without_history=blank)
    assert nothing.without_history.tokens == 1 and not len(nothing.without_history.targets)
