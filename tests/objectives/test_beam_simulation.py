"""Objective (3.1) against loops in float64, values and gradients."""

from __future__ import annotations

import math

import pytest
import torch

from bearray.config import ObjectiveConfig
from bearray.errors import ConfigError
from bearray.objectives import AnswerTokens, make_objective
from bearray.objectives.beam_simulation import BeamSimulation, cumulative

VOCAB = 9


def answer_tokens(logits, rows, thresholds, num_answer_tokens=None):
    """Tokens from (instance, step, target, valid tokens) rows; a threshold for each of `ROWS`."""
    width = max(len(r[3]) for r in rows)
    candidates = torch.tensor([sorted(r[3]) + [0] * (width - len(r[3])) for r in rows])
    valid = torch.tensor([[True] * len(r[3]) + [False] * (width - len(r[3])) for r in rows])
    return AnswerTokens.from_candidates(
        logits,
        torch.tensor([r[2] for r in rows]),
        candidates,
        valid,
        torch.tensor([r[0] for r in rows]),
        torch.tensor([r[1] for r in rows]),
        num_answer_tokens=num_answer_tokens,
        window_extras={"thresholds": table(thresholds)},
    )


def table(values):
    """[R, L] of a value a row of `ROWS`."""
    found = torch.full((3, 3), -math.inf, dtype=torch.float64)
    for (instance, step, *_), value in zip(ROWS, values, strict=True):
        found[instance, step] = value
    return found


ROWS = [
    (0, 0, 3, {1, 3, 5, 7}),
    (0, 1, 2, {2, 4, 6}),
    (0, 2, 8, {8}),  # forced
    (1, 0, 5, {1, 3, 5, 7}),
    (1, 1, 4, {4, 8}),
    (2, 0, 7, {7}),
]
THRESHOLDS = [-1.0, -2.5, -2.5, -0.3, -math.inf, -4.0]


def naive(z, *, lam, xi, form, vocabulary, mix, width):
    """Plain loops over the rows; z [N][V] of float64 tensors."""
    total, c = 0.0, {}
    for n, (instance, step, target, valid) in enumerate(ROWS):
        allowed = sorted(valid) if vocabulary == "trie" else range(VOCAB)
        log_z = torch.stack([z[n][v] for v in allowed]).logsumexp(0)
        log_p = z[n][target] - log_z
        c[instance] = (c[instance] if step else 0.0) + log_p

        def penalty(margin):
            inside = margin / xi if form == "equation" else -margin / xi
            log_sigmoid = -torch.log1p(torch.exp(-inside))
            return log_sigmoid if form == "equation" else -log_sigmoid

        regularizer = penalty(THRESHOLDS[n] - c[instance]) if THRESHOLDS[n] > -math.inf else 0.0
        ranked = sorted((float(z[n][v] - log_z) for v in allowed), reverse=True)
        own = penalty(ranked[min(width, len(ranked)) - 1] - log_p)
        total = total - log_p + lam * ((1 - mix) * regularizer + mix * own)
    return total / len(ROWS)


@pytest.mark.parametrize("form", ["equation", "hinge"])
@pytest.mark.parametrize("vocabulary", ["trie", "full"])
@pytest.mark.parametrize("mix", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_equals_the_loops(form, vocabulary, mix, scale):
    settings = {"lam": 0.7, "xi": 0.8, "form": form, "vocabulary": vocabulary, "mix": mix}
    generator = torch.Generator().manual_seed(4)
    values = scale * torch.randn(len(ROWS), VOCAB, generator=generator, dtype=torch.float64)
    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    output = BeamSimulation(beam_width=3, **settings)(answer_tokens(ours, ROWS, THRESHOLDS))
    loss = output.total / output.weight
    expected = naive(theirs, width=3, **settings)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    (gradient,) = torch.autograd.grad(loss, ours)
    (wanted,) = torch.autograd.grad(expected, theirs)
    torch.testing.assert_close(gradient, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("form", ["equation", "hinge"])
@pytest.mark.parametrize("mix", [0.0, 0.3])
def test_forced_tokens_need_no_logits_over_the_trie(form, mix):
    objective = BeamSimulation(lam=0.7, xi=0.8, form=form, mix=mix, beam_width=3)
    assert objective.positions == "branching" and BeamSimulation(vocabulary="full").positions == "all"
    logits = torch.randn(
        len(ROWS), VOCAB, generator=torch.Generator().manual_seed(6), dtype=torch.float64
    ).requires_grad_()
    branching = [n for n, row in enumerate(ROWS) if len(row[3]) > 1]
    whole = objective(answer_tokens(logits, ROWS, THRESHOLDS))
    some = objective(answer_tokens(logits[branching], [ROWS[n] for n in branching], THRESHOLDS, len(ROWS)))
    torch.testing.assert_close(some.total, whole.total)
    assert some.weight == whole.weight
    for name, (total, count) in whole.metrics.items():
        torch.testing.assert_close(some.metrics[name][0], total)
        assert some.metrics[name][1] == count
    gradients = [torch.autograd.grad(output.total, logits)[0] for output in (some, whole)]
    torch.testing.assert_close(*gradients)


def test_early_tokens_weigh_most():
    """The equivalent token weights: 1 + (lam / xi) * sum over t >= k of sigmoid(-D_t / xi)."""
    values = torch.randn(len(ROWS), VOCAB, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    logits = values.requires_grad_()
    objective = BeamSimulation(lam=0.5, xi=2.0, vocabulary="full")
    tokens = answer_tokens(logits, ROWS, THRESHOLDS)
    (gradient,) = torch.autograd.grad(objective(tokens).total, logits)
    log_p = logits.detach().log_softmax(1)
    chosen = log_p[torch.arange(len(ROWS)), tokens.targets]
    reached = cumulative(chosen, tokens.instance, tokens.step, (3, 3))
    margins = (table(THRESHOLDS) - reached)[0]
    own = torch.nn.functional.one_hot(tokens.targets, VOCAB).double()
    for n in range(3):  # the first answer
        later = sum(torch.sigmoid(-margins[t] / 2.0) for t in range(n, 3))
        torch.testing.assert_close(gradient[n], (1 + 0.25 * later) * (log_p[n].exp() - own[n]))


def test_logits_of_magnitude_100_and_thresholds_far_away_stay_finite():
    logits = (
        100 * torch.randn(len(ROWS), VOCAB, generator=torch.Generator().manual_seed(2))
    ).requires_grad_()
    tokens = answer_tokens(logits, ROWS, [-500.0, 0.0, -math.inf, -1e4, -1e-6, -math.inf])
    for form in ("equation", "hinge"):
        output = BeamSimulation(lam=5.0, xi=0.01, form=form)(tokens)
        (gradient,) = torch.autograd.grad(output.total, logits, retain_graph=True)
        assert torch.isfinite(output.total) and torch.isfinite(gradient).all()


def test_no_thresholds_anywhere_leaves_the_plain_loss():
    """A catalogue smaller than the beam: nothing can be pruned."""
    logits = torch.randn(len(ROWS), VOCAB, generator=torch.Generator().manual_seed(3))
    tokens = answer_tokens(logits, ROWS, [-math.inf] * len(ROWS))
    plain = make_objective(ObjectiveConfig(name="msl"))(tokens)
    output = BeamSimulation(lam=3.0)(tokens)
    assert float(output.total) == pytest.approx(float(plain.total), rel=1e-5)
    assert output.metrics["below_beam"][1] == 0


def test_metrics_count_prefixes_below_the_beam():
    logits = torch.zeros(len(ROWS), VOCAB)
    output = BeamSimulation()(answer_tokens(logits, ROWS, THRESHOLDS))
    c = [-math.log(4), -math.log(12), -math.log(12), -math.log(4), None, 0.0]
    below = sum(value is not None and t > value for t, value in zip(THRESHOLDS, c, strict=True))
    assert [float(x) for x in output.metrics["below_beam"]] == [below, 5]


def test_an_empty_share_is_nothing():
    tokens = AnswerTokens.from_candidates(
        torch.zeros(0, VOCAB, requires_grad=True), *(torch.zeros(0, dtype=torch.long),),
        torch.zeros(0, 1, dtype=torch.long), torch.zeros(0, 1, dtype=torch.bool),
        torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long),
        window_extras={"thresholds": torch.zeros(0, 0)},
    )  # fmt: skip
    output = BeamSimulation()(tokens)
    assert float(output.total) == 0 and float(output.weight) == 0
    output.total.backward()


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="form is 'released'"):
        BeamSimulation(form="released")
    with pytest.raises(ConfigError, match="never released"):
        make_objective(ObjectiveConfig(name="beam_simulation", form="released"))
    with pytest.raises(ConfigError, match=r"objective\.mix is 1\.5"):
        ObjectiveConfig(name="beam_simulation", mix=1.5)
