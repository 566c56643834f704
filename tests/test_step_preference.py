"""A preference loss through the training step: against one plain row for each answer and a second model as
the reference."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from bearray.backbones.load import load_model
from bearray.backbones.lora import add_lora
from bearray.backbones.reference import add_reference
from bearray.batching import Answer, collate
from bearray.config import override
from bearray.forward import use_tree_attention
from bearray.negatives import OtherAnswers
from bearray.objectives import make_objective
from bearray.step import TrainStep


def shake(model: Any, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".default." in name:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=g))


@pytest.fixture(scope="module", params=["tree", "padded"])
def base(micro_task, request) -> Any:
    base = load_model(micro_task.config.model.base, device="cpu")
    if request.param == "tree":
        assert use_tree_attention(base, "cpu")
    return base


@pytest.fixture
def model(base, micro_task) -> Any:
    model = add_lora(copy.deepcopy(base), micro_task.config.model)
    shake(model, 1)
    return model


def log_prob(model: Any, prompt: list[int], answer: list[int]) -> torch.Tensor:
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)].sum()


@pytest.mark.parametrize("reference", ["base", "start"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_equals_plain_rows_and_a_second_model(reference, checkpointing, model, base, micro_task) -> None:
    frozen = copy.deepcopy(model) if reference == "start" else base
    if reference == "start":
        add_reference(model)
        shake(model, 2)
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    config = override(micro_task.config, {"objective.name": "sdpo", "objective.beta": 0.7})
    objective = make_objective(config.objective)
    examples = micro_task.examples()
    others = OtherAnswers(objective.negatives, config, micro_task, examples, model, micro_task.catalog.trie)
    rows = [3, 8, 1]
    more: list[list[Answer]] = others(rows, step=4)
    step = TrainStep(model, objective, micro_task.catalog.trie, micro_task.eos_token_id, reference=reference)
    output = step(collate([examples[r] for r in rows], micro_task.pad_token_id, more))

    wanted = torch.zeros(())
    for row, negatives in zip(rows, more, strict=True):
        example = examples[row]
        reward = []
        for tokens in (example.answer, *(a.tokens for a in negatives)):
            with torch.no_grad():
                anchor = log_prob(frozen, example.prompt, tokens)
            reward.append(0.7 * (log_prob(model, example.prompt, tokens) - anchor))
        wanted = wanted - torch.sigmoid(-torch.log(sum((r - reward[0]).exp() for r in reward[1:]))).log()
    torch.testing.assert_close(output.total, wanted, rtol=1e-4, atol=1e-4)
    weights = [p for p in model.parameters() if p.requires_grad]
    ours, theirs = (torch.autograd.grad(loss, weights) for loss in (output.total, wanted))
    scale = max(float(g.abs().max()) for g in theirs)
    assert scale > 1e-3
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-3, atol=1e-4 * scale)


def test_the_reference_reads_no_dropout(base, micro_task) -> None:
    """Else the reward of a policy that has not moved would not be 0; the policy has it."""
    config = override(micro_task.config, {"objective.name": "dpo", "model.lora_dropout": 0.9})
    model = add_lora(copy.deepcopy(base), config.model).train()
    shake(model, 1)
    add_reference(model)
    objective = make_objective(config.objective)
    seen = []
    objective.compare = lambda tokens, log_p: (
        seen.append(tokens) or type(objective).compare(objective, tokens, log_p)
    )
    examples = micro_task.examples()
    others = OtherAnswers(objective.negatives, config, micro_task, examples, model, micro_task.catalog.trie)
    step = TrainStep(model, objective, micro_task.catalog.trie, micro_task.eos_token_id)
    batch = collate(examples[:2], micro_task.pad_token_id, others([0, 1], 0))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    margins = [float(step(batch).metrics["reward_margin"][0]) for _ in range(2)]
    first, second = (tokens.extras["reference"] for tokens in seen)
    assert torch.equal(first, second) and first.dtype == torch.float32
    assert margins[0] != margins[1] and not torch.equal(state, torch.get_rng_state())
