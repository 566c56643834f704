"""The training step against the plain way: full logits of the Hugging Face model and the dense losses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
)

from bearray.backbones.load import load_model
from bearray.backbones.lora import add_lora
from bearray.batching import collate
from bearray.config import ObjectiveConfig
from bearray.errors import ModelError
from bearray.forward import check_projection, project, use_tree_attention
from bearray.objectives import at_least, bear_loss, make_objective, msl_loss, sft_loss
from bearray.step import TrainStep
from tests.adapters import stir

BEAR = {"name": "bear", "lam": 0.7, "xi": 0.6, "beam_width": 3, "tau": 1.3}
Dense = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


def _bear(form: str) -> Dense:
    return lambda z, y, valid: bear_loss(z, y, lam=0.7, xi=0.6, beam_width=3, valid=valid, form=form, tau=1.3)


CASES: dict[str, tuple[dict[str, Any], Dense]] = {
    "sft": ({"name": "sft"}, lambda z, y, _: sft_loss(z, y)),
    "msl-trie": ({"name": "msl", "tau": 1.4}, lambda z, y, valid: msl_loss(z, y, valid=valid, tau=1.4)),
    "msl-full": (
        {"name": "msl", "tau": 1.4, "vocabulary": "full"},
        lambda z, y, _: msl_loss(z, y, valid=torch.ones_like(z, dtype=torch.bool), tau=1.4),
    ),
    **{
        f"bear-{form}-{vocabulary}": (
            {**BEAR, "form": form, "vocabulary": vocabulary},
            (lambda dense: dense if vocabulary == "trie" else lambda z, y, _: dense(z, y, None))(_bear(form)),
        )
        for form in ("equation", "released", "hinge")
        for vocabulary in ("trie", "full")
    },
}


@pytest.fixture(scope="module", params=["tree", "padded"])
def model(micro_task, request) -> Any:
    """The micro base with an adapter that is not zero, so that both of its matrices have gradients; reading
    micro-batches without padding, and in padded rows."""
    base = load_model(micro_task.config.model.base, device="cpu")
    if request.param == "tree":
        assert use_tree_attention(base, "cpu")
    return stir(add_lora(base, micro_task.config.model))


@pytest.fixture(scope="module", params=["shared start", "nothing shared"])
def examples(micro_task, request) -> list:
    """Prompts of different lengths, some cut short, that begin alike or do not."""
    chosen = copy.deepcopy(micro_task.examples()[:5])
    kept = 20 if request.param == "shared start" else 0
    return [
        type(e)(e.prompt[:kept] + e.prompt[kept + 7 * i :], e.answer, e.nodes, e.target_title)
        for i, e in enumerate(chosen)
    ]


def step_of(model: Any, task: Any, settings: dict[str, Any]) -> TrainStep:
    objective = make_objective(ObjectiveConfig(**settings))
    objective.bind(task.catalog.trie)
    return TrainStep(model, objective, task.catalog.trie, task.eos_token_id)


def plain_logits(model: Any, examples: list, task: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits [N, V], targets [N] and valid [N, V] of all answer tokens, one window at a time."""
    titles = [(*tuple(t), task.eos_token_id) for t in task.catalog.tokens]
    logits, targets, valid = [], [], []
    for e in examples:
        ids = torch.tensor([e.prompt + e.answer])
        logits.append(model(input_ids=ids).logits[0, len(e.prompt) - 1 : -1])
        for k, token in enumerate(e.answer):
            targets.append(token)
            row = torch.zeros(logits[-1].shape[1], dtype=torch.bool)
            row[[t[k] for t in titles if t[:k] == tuple(e.answer[:k])]] = True
            valid.append(row)
    return torch.cat(logits), torch.tensor(targets), torch.stack(valid)


def adapter_gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_step_equals_plain_model_and_dense_loss(case, model, micro_task, examples):
    settings, dense = CASES[case]
    objective = make_objective(ObjectiveConfig(**settings))
    choices = micro_task.catalog.trie if objective.positions == "branching" else None
    batch = collate(examples, micro_task.pad_token_id, choices=choices)
    assert (batch.layout.branch < 0).any() and batch.layout.shared in (0, 20)
    output = step_of(model, micro_task, settings)(batch)
    ours = output.total / at_least(output.weight)
    theirs = dense(*plain_logits(model, examples, micro_task))
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=1e-6)
    expected = adapter_gradients(model, theirs)
    scale = max(float(g.abs().max()) for g in expected.values())
    assert scale > 1e-3
    for name, gradient in adapter_gradients(model, ours).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=2e-5 * scale, msg=name)


@pytest.mark.parametrize("case", CASES)
def test_micro_batches_add_up_to_the_batch(case, model, micro_task, examples):
    step, pad = step_of(model, micro_task, CASES[case][0]), micro_task.pad_token_id
    whole = step(collate(examples, pad))
    parts = [step(collate(part, pad)) for part in (examples[:1], [], examples[1:4], examples[4:])]
    torch.testing.assert_close(sum(p.total for p in parts), whole.total, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sum(p.weight for p in parts), whole.weight, rtol=1e-5, atol=1e-5)
    for name, (value, count) in whole.metrics.items():
        torch.testing.assert_close(sum(p.metrics[name][0] for p in parts), value, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(sum(p.metrics[name][1] for p in parts), count)


@pytest.mark.parametrize("case", CASES)
def test_a_share_without_windows_has_loss_and_gradients_of_zero(case, model, micro_task):
    output = step_of(model, micro_task, CASES[case][0])(collate([], micro_task.pad_token_id))
    assert output.total.item() == 0 and output.weight.item() == 0
    assert all(not g.any() for g in adapter_gradients(model, output.total).values())


@pytest.mark.parametrize("case", CASES)
def test_only_what_counts_is_projected(case, model, micro_task, examples, monkeypatch):
    shapes: list[Any] = []
    step = step_of(model, micro_task, CASES[case][0])
    monkeypatch.setattr(
        "bearray.step.project", lambda *args: shapes.append(project(*args).shape) or project(*args)
    )
    choices = micro_task.catalog.trie if step.objective.positions == "branching" else None
    step(collate(examples, micro_task.pad_token_id, choices=choices))
    logits, _, valid = plain_logits(model, examples, micro_task)
    branching = valid.sum(1) > 1
    assert 0 < int(branching.sum()) < len(valid)
    if CASES[case][0]["name"] == "sft" or CASES[case][0].get("vocabulary") == "full":
        assert shapes == [logits.shape]
    else:  # forced tokens need no logits, and of the others only what is valid somewhere
        assert shapes == [(int(branching.sum()), int(valid[branching].any(0).sum()))]
        assert shapes[0][1] < logits.shape[1] / 2


def test_what_follows_the_last_choice_is_not_read(micro_task, examples):
    trie, pad = micro_task.catalog.trie, micro_task.pad_token_id
    whole, cut = collate(examples, pad), collate(examples, pad, choices=trie)
    fed = [max(k for k, n in enumerate(e.nodes) if trie.child_count(torch.tensor([n])) > 1) for e in examples]
    saved = sum(len(e.answer) - 1 - f for e, f in zip(examples, fed, strict=True))
    assert whole.tokens - cut.tokens == saved > 0
    assert whole.num_answer_tokens == cut.num_answer_tokens == len(whole.targets) > len(cut.targets)
    assert cut.answers.length.tolist() == whole.answers.length.tolist()


def test_violation_and_margin_are_those_of_the_plain_logits(model, micro_task, examples):
    """Condition (3.2): the target is among the B best valid tokens."""
    output = step_of(model, micro_task, BEAR)(collate(examples, micro_task.pad_token_id))
    logits, targets, valid = plain_logits(model, examples, micro_task)
    violated, margins = [], []
    for z, y, ok in zip(logits.detach(), targets, valid, strict=True):
        if ok.sum() > 1:
            best = z[ok].sort(descending=True).values[:3]
            margins.append(float(best[-1] - z[y]))
            violated.append(bool((z[ok] > z[y]).sum() >= 3))
    assert 0 < sum(violated) < len(violated)
    assert [float(x) for x in output.metrics["violation"]] == [sum(violated), len(violated)]
    assert float(output.metrics["margin"][0]) == pytest.approx(sum(margins), rel=1e-4)


SMALL: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip


def test_models_that_change_their_logits_in_unknown_ways_are_refused():
    torch.manual_seed(0)
    for model in (
        GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=4.0)),
        CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.25)),
    ):
        model.train()
        with pytest.raises(ModelError, match=type(model).__name__):
            check_projection(model, "cpu")
        assert model.training


def test_soft_capped_logits_are_known(model):
    torch.manual_seed(0)
    gemma = Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=0.05)).eval()
    check_projection(gemma, "cpu")
    ids = torch.arange(5)[None]
    hidden = gemma.model(input_ids=ids).last_hidden_state[0]
    torch.testing.assert_close(project(gemma, hidden), gemma(input_ids=ids).logits[0])
    assert project(gemma, hidden).abs().max() < 0.05 < gemma.lm_head(hidden).abs().max()
    check_projection(model, "cpu")  # with an adapter, too
