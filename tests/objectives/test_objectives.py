"""Objectives of the training step: equal to the dense losses, however the rows are cut up."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bearray.config import ObjectiveConfig
from bearray.errors import ConfigError
from bearray.objectives import (
    AnswerTokens,
    LossOutput,
    Objective,
    at_least,
    bear_loss,
    list_objectives,
    make_objective,
    msl_loss,
    sft_loss,
)
from bearray.objectives.registry import fields_used
from bearray.trie import TokenTrie

from . import reference
from .cases import allowed, as_tokens, random_rows

torch.set_num_threads(1)

CONFIGS = [
    ObjectiveConfig(name="sft"),
    *(ObjectiveConfig(name="msl", vocabulary=v, tau=t) for v in ("trie", "full") for t in (1.0, 4.5)),
    ObjectiveConfig(name="msl", adaptive=True),
    *(
        ObjectiveConfig(name="bear", form=form, vocabulary=v, lam=0.8, xi=0.5, beam_width=4, tau=t)
        for form in ("equation", "released", "hinge")
        for v in ("trie", "full")
        for t in (1.0, 2.0)
    ),
]


def config_id(c: ObjectiveConfig) -> str:
    return f"{c.name}-{c.form}-{c.vocabulary}-{c.tau}{'-adaptive' if c.adaptive else ''}"


every_objective = pytest.mark.parametrize("config", CONFIGS, ids=config_id)


def dense(config: ObjectiveConfig, logits: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """What the objective's loss is by the dense functions."""
    if config.name == "sft":
        return sft_loss(logits, targets)
    mask = valid if config.vocabulary == "trie" else torch.ones_like(valid)
    if config.adaptive:  # mean over the tokens with a choice, times the temperature
        return 1.5 * msl_loss(logits, targets, valid=mask, tau=1.5) * len(targets) / (valid.sum(1) > 1).sum()
    if config.name == "msl":
        return msl_loss(logits, targets, valid=mask, tau=config.tau)
    return bear_loss(
        logits,
        targets,
        lam=config.lam,
        xi=config.xi,
        beam_width=config.beam_width,
        form=config.form,
        tau=config.tau,
        valid=valid if config.vocabulary == "trie" else None,
    )


def merge(outputs: list[LossOutput]) -> Tensor:
    """One optimiser step's loss from its micro-batches, as the training loop makes it."""
    total = torch.stack([o.total for o in outputs]).sum()
    return total / at_least(torch.stack([o.weight for o in outputs]).sum())


@every_objective
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_equals_the_dense_loss(config: ObjectiveConfig, dtype: torch.dtype) -> None:
    logits, targets, valid = random_rows(21, rows=30)
    logits = logits.to(dtype).requires_grad_()
    expected = dense(config, logits, targets, valid)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    objective = make_objective(config)
    for left_out in {False, objective.positions == "branching"}:
        loss = merge([objective(as_tokens(logits, targets, valid, branching_only=left_out))])
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        tolerance = {} if dtype == torch.float64 else {"rtol": 1e-2, "atol": 1e-5}
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(gradient, expected_gradient, **tolerance)


@every_objective
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 24), cuts=st.lists(st.integers(0, 24), max_size=4))
def test_accumulation_does_not_matter(config: ObjectiveConfig, seed: int, rows: int, cuts: list[int]) -> None:
    """Any cut into micro-batches, empty ones included, gives the loss and gradient of the whole."""
    logits, targets, valid = random_rows(seed, rows=rows, scale=3.0)
    logits.requires_grad_()
    objective = make_objective(config)
    left_out = objective.positions == "branching"
    bounds = [0, *sorted(min(c, rows) for c in cuts), rows]
    parts, whole = [], [as_tokens(logits, targets, valid, branching_only=left_out)]
    for a, b in itertools.pairwise(bounds):
        parts.append(as_tokens(logits[a:b], targets[a:b], valid[a:b], branching_only=left_out))
    losses = [merge([objective(t) for t in tokens]) for tokens in (parts, whole)]
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in losses]
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])
    for name, (total, count) in objective(whole[0]).metrics.items():
        split = [objective(t).metrics[name] for t in parts]
        torch.testing.assert_close(sum(s[0] for s in split), total)
        torch.testing.assert_close(sum(s[1] for s in split), count)


@every_objective
def test_weight_is_known_before_the_forward_pass(config: ObjectiveConfig) -> None:
    logits, targets, valid = random_rows(22, rows=20)
    objective = make_objective(config)
    branching = int((valid.sum(1) > 1).sum())
    tokens = as_tokens(logits, targets, valid, branching_only=objective.positions == "branching")
    if objective.weight_from != "counts":
        assert config.form == "released"
        with pytest.raises(RuntimeError, match="is no count; it is from logits"):
            objective.weight_of(20, branching)
    else:
        assert objective(tokens).weight.item() == objective.weight_of(20, branching)


def test_the_fields_that_an_objective_depends_on() -> None:
    def used(**settings: Any) -> set[str]:
        return set(fields_used(ObjectiveConfig(**settings)))

    assert used(name="sft") == {"name", "beam_width"}
    assert {"lam", "xi", "form", "vocabulary", "tau"} <= used(name="bear")
    assert "rollouts" not in used(name="bear") and "rollouts" in used(name="grpo")
    assert {"reference", "negatives"} <= used(name="sdpo") and "near_to" not in used(name="sdpo")
    assert "near_to" in used(name="dpo", negative_kind="near") and "negatives" not in used(name="dpo")


@every_objective
def test_no_rows_give_a_connected_zero(config: ObjectiveConfig) -> None:
    weight = torch.ones(3, 9, requires_grad=True)
    logits = torch.zeros(0, 3) @ weight
    nothing = torch.zeros(0, dtype=torch.long)
    trie = TokenTrie.from_sequences([[1, 2], [3]])
    tokens = AnswerTokens.build(logits, nothing, nothing, trie, 8, nothing, nothing)
    output = make_objective(config)(tokens)
    assert output.total.item() == 0 and output.weight.item() == 0
    output.total.backward()
    assert weight.grad is not None and not weight.grad.any()
    assert all(total.item() == 0 and count.item() == 0 for total, count in output.metrics.values())
    assert merge([output]).item() == 0


@every_objective
def test_only_forced_tokens(config: ObjectiveConfig) -> None:
    logits = torch.randn(4, 6, requires_grad=True)
    targets = torch.tensor([0, 1, 2, 3])
    valid = torch.nn.functional.one_hot(targets, 6).bool()
    loss = merge([make_objective(config)(as_tokens(logits, targets, valid))])
    assert math.isfinite(loss.item())
    if not config.adaptive:  # its divisor is then 0
        torch.testing.assert_close(loss, dense(config, logits, targets, valid), rtol=1e-6, atol=1e-7)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(gradient).all()


def test_metrics_by_hand() -> None:
    logits, targets, valid = random_rows(23, rows=50)
    columns = allowed(valid)
    margin = reference.margins(logits.tolist(), targets.tolist(), columns, 4)
    branching = [len(c) > 1 for c in columns]
    n = sum(branching)
    for config in (CONFIGS[0], ObjectiveConfig(name="bear", lam=0.5, xi=0.5, beam_width=4)):
        config = ObjectiveConfig(**{**config.__dict__, "beam_width": 4})
        metrics = make_objective(config)(as_tokens(logits, targets, valid)).metrics
        rate = {k: (s / c).item() for k, (s, c) in metrics.items()}
        expected = sum(m > 0 for m, b in zip(margin, branching, strict=True) if b) / n
        assert 0 < expected < 1
        assert rate["violation"] == pytest.approx(expected)
        assert rate["margin"] == pytest.approx(sum(margin) / n)
        space = columns if config.name == "bear" else [list(range(17))] * 50
        nll, _ = reference.nll_rows(logits.tolist(), targets.tolist(), space)
        assert rate["nll"] == pytest.approx(sum(nll) / 50)
    penalties = [reference.regularizer(m, 0.5, "equation")[0] for m in margin]
    assert rate["regularizer"] == pytest.approx(sum(penalties) / 50)
    released = ObjectiveConfig(name="bear", lam=0.5, xi=0.5, beam_width=4, form="released")
    total, count = make_objective(released)(as_tokens(logits, targets, valid)).metrics["regularizer"]
    safety = [reference.sigmoid(-m / 0.5) for m, b in zip(margin, branching, strict=True) if b]
    assert (total / count).item() == pytest.approx(sum(safety) / n)


TITLES = [[5, 1], [5, 1, 2], [5, 3], [7, 2, 2, 2], [9]]
EOS = 11


def answer_rows(titles: list[list[int]]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Nodes, targets, instance, step and the dense mask of some titles of the trie."""
    trie = TokenTrie.from_sequences(TITLES)
    paths = trie.path_nodes(titles)
    nodes = torch.tensor([n for path in paths for n in path])
    targets = torch.tensor([t for title in titles for t in [*title, EOS]])
    instance = torch.tensor([i for i, path in enumerate(paths) for _ in path])
    step = torch.tensor([k for path in paths for k in range(len(path))])
    valid = torch.zeros(len(targets), 12, dtype=torch.bool)
    prefixes = [title[:k] for title in titles for k in range(len(title) + 1)]
    for row, prefix in enumerate(prefixes):  # the valid tokens, found the slow way
        for title in TITLES:
            if title[: len(prefix)] == prefix:
                valid[row, (*title, EOS)[len(prefix)]] = True
    return nodes, targets, instance, step, valid


@every_objective
def test_build_over_a_real_trie(config: ObjectiveConfig) -> None:
    nodes, targets, instance, step, valid = answer_rows([TITLES[1], TITLES[0], TITLES[3], TITLES[4]])
    g = torch.Generator().manual_seed(3)
    logits = torch.randn(len(targets), 12, dtype=torch.float64, generator=g).requires_grad_()
    trie, objective = TokenTrie.from_sequences(TITLES), make_objective(config)
    expected = dense(config, logits, targets, valid)
    keep = torch.arange(len(targets))
    if objective.positions == "branching":
        keep = keep[trie.child_count(nodes) > 1]
        assert len(keep) < len(targets)
    tokens = AnswerTokens.build(
        logits[keep],
        targets[keep],
        nodes[keep],
        trie,
        EOS,
        instance[keep],
        step[keep],
        num_answer_tokens=len(targets),
    )
    loss = merge([objective(tokens)])
    torch.testing.assert_close(loss, expected)
    (a,), (b,) = torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(a, b)


def test_columns_of_the_batch_are_enough_for_the_trie() -> None:
    nodes, targets, instance, step, valid = answer_rows([TITLES[1], TITLES[3]])
    logits = torch.randn(len(targets), 12, dtype=torch.float64)
    trie = TokenTrie.from_sequences(TITLES)
    candidates, real = trie.candidates(nodes, EOS)
    columns = candidates[real].unique()
    assert len(columns) < 12
    some = logits[:, columns].requires_grad_()
    tokens = AnswerTokens.from_candidates(some, targets, candidates, real, instance, step, columns=columns)
    assert columns[tokens.targets].tolist() == targets.tolist()
    loss = merge([make_objective(ObjectiveConfig(xi=0.5))(tokens)])
    torch.testing.assert_close(loss, bear_loss(logits, targets, lam=0.25, xi=0.5, valid=valid))
    with pytest.raises(ValueError, match="all columns"):
        make_objective(ObjectiveConfig(name="sft"))(tokens)
    with pytest.raises(ValueError, match="missing from columns"):
        AnswerTokens.from_candidates(
            some[:, 1:], targets, candidates, real, instance, step, columns=columns[1:]
        )
    with pytest.raises(ValueError, match="columns must be"):
        AnswerTokens.from_candidates(some, targets, candidates, real, instance, step, columns=columns[1:])


def test_rows_that_do_not_fit_are_refused() -> None:
    nodes, targets, instance, step, _ = answer_rows([TITLES[1], TITLES[3]])
    logits = torch.randn(len(targets), 12)
    trie = TokenTrie.from_sequences(TITLES)
    wrong = targets.clone()
    wrong[5] = 1
    with pytest.raises(ValueError, match=r"token 1 of row 5 \(instance 1, step 1\)"):
        AnswerTokens.build(logits, wrong, nodes, trie, EOS, instance, step)
    with pytest.raises(ValueError, match="step must be"):
        AnswerTokens.build(logits, targets, nodes, trie, EOS, instance, step[1:])
    with pytest.raises(ValueError, match="candidates"):
        AnswerTokens.build(logits, targets, nodes[1:], trie, EOS, instance, step)
    with pytest.raises(ValueError, match="num_answer_tokens is 2"):
        AnswerTokens.build(logits, targets, nodes, trie, EOS, instance, step, num_answer_tokens=2)
    left_out = AnswerTokens.build(logits, targets, nodes, trie, EOS, instance, step, num_answer_tokens=99)
    with pytest.raises(ValueError, match="needs all tokens"):
        make_objective(ObjectiveConfig(name="sft"))(left_out)


def test_registry() -> None:
    rows = list_objectives()
    assert [set(r) for r in rows] == [{"name", "needs", "source"}] * len(rows)
    assert json.loads(json.dumps(rows)) == rows
    names = [r["name"] for r in rows]
    assert len(set(names)) == len(names) and {"sft", "msl", "bear"} <= set(names)
    for name in names:
        objective = make_objective(ObjectiveConfig(name=name))
        assert isinstance(objective, Objective) and objective.name == name
    with pytest.raises(ConfigError, match=r"'beer'; known: .*bear.*sft"):
        make_objective(ObjectiveConfig(name="beer"))
    with pytest.raises(ValueError, match="keeps no state"):
        make_objective(ObjectiveConfig(name="sft")).load_state_dict({"tau": 1.0})


def test_unmet_needs_are_named() -> None:
    bear = make_objective(ObjectiveConfig())
    bear.check_needs({"trie", "popularity"})
    with pytest.raises(ConfigError, match=r"'bear' needs trie"):
        bear.check_needs(["popularity"])


def test_settings_reach_the_objective() -> None:
    config = ObjectiveConfig(lam=0.3, xi=0.7, beam_width=6, form="hinge", vocabulary="full", tau=2.0)
    bear = make_objective(config)
    assert {k: getattr(bear, k) for k in ("lam", "xi", "beam_width", "form", "vocabulary", "tau")} == {
        "lam": 0.3,
        "xi": 0.7,
        "beam_width": 6,
        "form": "hinge",
        "vocabulary": "full",
        "tau": 2.0,
    }
    assert make_objective(ObjectiveConfig(name="sft", beam_width=3)).beam_width == 3


@pytest.mark.parametrize(
    ("name", "field", "usual"),
    [("cft", "last_weight", 0.25), ("d2lr", "power", 0.1), ("igd", "uninformative_weight", 0.1)],
)
def test_weights_of_one_objective_reach_it(name: str, field: str, usual: float) -> None:
    assert getattr(make_objective(ObjectiveConfig(name=name)), field) == usual
    for value in (0.0, 0.7):
        config = ObjectiveConfig(name=name, **{field: value})
        assert getattr(make_objective(config), field) == value
        assert field in fields_used(config) and field not in fields_used(ObjectiveConfig(name="sft"))
