"""The dense losses against hand-written float64 loops: values and gradients, options, types, corners."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bearray.errors import ConfigError
from bearray.objectives import bear_loss, bear_regularizer, msl_loss, sft_loss

from . import reference
from .cases import allowed, random_rows

torch.set_num_threads(1)

FORMS = ["equation", "released", "hinge"]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def check(
    loss: Tensor, logits: Tensor, expected: tuple[float, list[list[float]]], tolerance: float = 1e-10
) -> None:
    value, gradient = expected
    assert loss.dim() == 0
    assert loss.item() == pytest.approx(value, rel=tolerance, abs=tolerance)
    (got,) = torch.autograd.grad(loss, logits)
    assert got.dtype == logits.dtype
    want = torch.tensor(gradient, dtype=torch.float64)
    size = max(float(want.abs().max()), 1e-12)
    torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=tolerance * size)


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_sft_matches_loops(dtype: torch.dtype, scale: float) -> None:
    logits, targets, _ = random_rows(1, scale=scale)
    logits = logits.to(dtype).requires_grad_()
    every = [list(range(logits.shape[1]))] * len(targets)
    check(
        sft_loss(logits, targets),
        logits,
        reference.mean_loss(logits.tolist(), targets.tolist(), every),
        TOLERANCE[dtype],
    )


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("tau", [0.5, 1.0, 4.5])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_msl_matches_loops(dtype: torch.dtype, tau: float, scale: float) -> None:
    logits, targets, valid = random_rows(2, scale=scale)
    logits = logits.to(dtype).requires_grad_()
    expected = reference.mean_loss(logits.tolist(), targets.tolist(), allowed(valid), tau)
    check(msl_loss(logits, targets, valid=valid, tau=tau), logits, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("masked", [True, False])
def test_bear_matches_loops(form: str, dtype: torch.dtype, masked: bool) -> None:
    logits, targets, valid = random_rows(3, rows=40)
    logits = logits.to(dtype).requires_grad_()
    columns = allowed(valid if masked else torch.ones_like(valid))
    options = {"lam": 0.7, "xi": 0.6, "beam_width": 4, "form": form}
    expected = reference.bear(logits.tolist(), targets.tolist(), columns, **options)
    check(
        bear_loss(logits, targets, valid=valid if masked else None, **options),
        logits,
        expected,
        TOLERANCE[dtype],
    )


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 9),
    vocabulary=st.integers(1, 25),
    scale=st.sampled_from([0.1, 1.0, 30.0, 300.0]),
    lam=st.floats(0, 8),
    xi=st.sampled_from([1e-3, 0.1, 0.25, 1.0, 3.0, 50.0]),
    beam_width=st.integers(1, 30),
    tau=st.sampled_from([0.3, 1.0, 4.5]),
    form=st.sampled_from(FORMS),
)
def test_bear_matches_loops_everywhere(
    seed: int,
    rows: int,
    vocabulary: int,
    scale: float,
    lam: float,
    xi: float,
    beam_width: int,
    tau: float,
    form: str,
) -> None:
    logits, targets, valid = random_rows(seed, rows=rows, vocabulary=vocabulary, scale=scale)
    logits.requires_grad_()
    options = {"lam": lam, "xi": xi, "beam_width": beam_width, "form": form, "tau": tau}
    expected = reference.bear(logits.tolist(), targets.tolist(), allowed(valid), **options)
    check(bear_loss(logits, targets, valid=valid, **options), logits, expected, 1e-8)


@pytest.mark.parametrize("form", ["equation", "hinge"])
@pytest.mark.parametrize("masked", [True, False])
def test_regularizer_rows_and_gradient(form: str, masked: bool) -> None:
    logits, targets, valid = random_rows(4, rows=30)
    valid = valid if masked else torch.ones_like(valid)
    log_probs = logits.log_softmax(-1).requires_grad_()
    got = bear_regularizer(
        log_probs, targets, beam_width=5, xi=0.4, valid=valid if masked else None, form=form
    )
    margin = reference.margins(log_probs.tolist(), targets.tolist(), allowed(valid), 5)
    values, slopes = zip(*(reference.regularizer(m, 0.4, form) for m in margin), strict=True)
    assert got.tolist() == pytest.approx(list(values), rel=1e-10)
    (gradient,) = torch.autograd.grad(got.sum(), log_probs)
    expected = torch.zeros_like(gradient)  # only the target's own entry: the threshold is a constant
    expected[torch.arange(30), targets] = -torch.tensor(slopes, dtype=torch.float64)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("form", ["equation", "hinge"])
def test_loss_is_nll_plus_regularizer(form: str) -> None:
    logits, targets, valid = random_rows(5)
    log_probs = logits.masked_fill(~valid, -math.inf).log_softmax(-1)
    # -inf says "not valid" as well as a mask does
    rows = bear_regularizer(log_probs, targets, beam_width=3, xi=0.5, form=form)
    torch.testing.assert_close(
        rows, bear_regularizer(log_probs, targets, beam_width=3, xi=0.5, valid=valid, form=form)
    )
    nll = msl_loss(logits, targets, valid=valid)
    whole = bear_loss(logits, targets, lam=2.0, xi=0.5, beam_width=3, valid=valid, form=form)
    torch.testing.assert_close(whole, nll + 2.0 * rows.mean())


def test_gradcheck_of_the_differentiable_losses() -> None:
    logits, targets, valid = random_rows(6, rows=6, vocabulary=8)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: sft_loss(z, targets), (logits,))
    assert torch.autograd.gradcheck(lambda z: msl_loss(z, targets, valid=valid, tau=1.7), (logits,))
    # beta is held constant, which finite differences cannot see; here it is another token's.
    log_probs = logits.detach().log_softmax(-1)
    index = torch.arange(6)

    def of_target(log_p: Tensor, form: str) -> Tensor:
        scores = log_probs.index_put((index, targets), log_p)
        return bear_regularizer(scores, targets, beam_width=1, xi=0.7, form=form)

    log_p = (log_probs[index, targets] - 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: of_target(x, "equation"), (log_p,))
    assert torch.autograd.gradcheck(lambda x: of_target(x, "hinge"), (log_p,))


def test_sign_of_the_two_regularizers() -> None:
    """(3.4) is steepest on safe tokens, the hinge on those that violate (3.2); both raise the target."""
    logits = torch.tensor(
        [[9.0, 0, 0, 0], [0, 9.0, 0, 0]], dtype=torch.float64
    )  # row 0 safe, row 1 violating
    targets = torch.tensor([0, 0])
    slopes = {}
    for form in ("equation", "hinge"):
        log_probs = logits.log_softmax(-1).requires_grad_()
        rows = bear_regularizer(log_probs, targets, beam_width=1, xi=1.0, form=form)
        (gradient,) = torch.autograd.grad(rows.sum(), log_probs)
        slopes[form] = gradient[:, 0].abs().tolist()
        assert gradient[:, 0].max() < 0  # both push the target up
    assert slopes["equation"][0] > 100 * slopes["equation"][1]
    assert slopes["hinge"][1] > slopes["hinge"][0]


def test_fewer_valid_than_beam_takes_the_smallest() -> None:
    log_probs = torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64).log()
    valid = torch.tensor([[True, True, True, False]])
    got = bear_regularizer(log_probs, torch.tensor([0]), beam_width=10, xi=1.0, valid=valid)
    assert got.item() == pytest.approx(reference.log_sigmoid(math.log(0.15 / 0.5)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_forced_tokens_have_a_constant_loss(form: str, dtype: torch.dtype) -> None:
    logits = torch.full((3, 5), 100.0, dtype=dtype).requires_grad_()
    valid = torch.zeros(3, 5, dtype=torch.bool)
    targets = torch.tensor([4, 0, 2])
    valid[torch.arange(3), targets] = True
    loss = bear_loss(logits, targets, lam=0.5, xi=1e-3, valid=valid, form=form)
    constant = {"equation": 0.5 * math.log(0.5), "hinge": -0.5 * math.log(0.5), "released": 0.0}[form]
    assert loss.item() == pytest.approx(constant)
    loss.backward()
    assert logits.grad is not None and torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("xi", [1e-3, 1.0])
def test_garbage_at_masked_entries_does_not_reach_the_gradient(form: str, xi: float) -> None:
    logits, targets, valid = random_rows(7, scale=200.0)
    clean = logits.float().requires_grad_()
    dirty = logits.float().masked_fill(~valid, math.nan)
    dirty[3] = dirty[3].masked_fill(~valid[3], math.inf)
    dirty.requires_grad_()
    got = [bear_loss(z, targets, lam=1.0, xi=xi, valid=valid, form=form) for z in (clean, dirty)]
    assert torch.equal(got[0], got[1])
    gradients = [torch.autograd.grad(loss, z)[0] for loss, z in zip(got, (clean, dirty), strict=True)]
    assert torch.equal(gradients[0], gradients[1])
    assert torch.isfinite(gradients[0]).all()
    assert not gradients[0][~valid].any()


def test_impossible_tokens_by_logit() -> None:
    """Without a mask, a logit of -inf is a token that cannot come."""
    logits, targets, valid = random_rows(8)
    masked = logits.masked_fill(~valid, -math.inf).requires_grad_()
    loss = bear_loss(masked, targets, lam=1.0, xi=0.5, beam_width=4)
    torch.testing.assert_close(loss, bear_loss(logits, targets, lam=1.0, xi=0.5, beam_width=4, valid=valid))
    assert torch.isfinite(torch.autograd.grad(loss, masked)[0]).all()


def test_lambda_zero_is_the_plain_loss() -> None:
    logits, targets, valid = random_rows(9)
    for form in ("equation", "hinge"):
        torch.testing.assert_close(
            bear_loss(logits, targets, lam=0, xi=1, form=form), sft_loss(logits, targets)
        )
    released = bear_loss(logits, targets, lam=0, xi=1, valid=valid, form="released")
    branching = (valid.sum(1) > 1).sum()
    torch.testing.assert_close(
        released, msl_loss(logits, targets, valid=valid) * len(targets) / branching, rtol=1e-7, atol=0
    )


def test_results_are_float32_for_half_precision() -> None:
    logits, targets, valid = random_rows(10)
    half = logits.half()
    assert sft_loss(half, targets).dtype == torch.float32
    assert msl_loss(half, targets, valid=valid).dtype == torch.float32
    assert bear_loss(half, targets, lam=1, xi=1).dtype == torch.float32
    assert sft_loss(logits, targets).dtype == torch.float64
    assert sft_loss(half, targets.int()).dtype == torch.float32


GOOD = {"lam": 1.0, "xi": 1.0, "beam_width": 3}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"xi": 0}, "xi"),
        ({"xi": -1}, "xi"),
        ({"xi": math.nan}, "xi"),
        ({"xi": math.inf}, "xi"),
        ({"lam": -0.1}, "lam"),
        ({"lam": math.nan}, "lam"),
        ({"beam_width": 0}, "beam_width"),
        ({"beam_width": 2.5}, "beam_width"),
        ({"form": "exact"}, "form"),
        ({"tau": 0}, "tau"),
    ],
)
def test_bad_settings(change: dict, word: str) -> None:
    logits, targets, _ = random_rows(11)
    with pytest.raises(ConfigError, match=word):
        bear_loss(logits, targets, **{**GOOD, **change})
    if word in ("xi", "beam_width", "form"):
        with pytest.raises(ConfigError, match=word):
            bear_regularizer(logits, targets, **{"xi": 1.0, "beam_width": 3, **change})


def test_regularizer_has_no_released_form() -> None:
    logits, targets, _ = random_rows(11)
    with pytest.raises(ConfigError, match="released"):
        bear_regularizer(logits, targets, beam_width=3, xi=1.0, form="released")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="tau"):
        msl_loss(logits, targets, valid=torch.ones_like(logits, dtype=torch.bool), tau=-1)


def test_bad_shapes_and_targets() -> None:
    logits, targets, valid = random_rows(12)
    v = logits.shape[1]
    losses = [
        lambda z, t, m: sft_loss(z, t),
        lambda z, t, m: msl_loss(z, t, valid=m),
        lambda z, t, m: bear_loss(z, t, valid=m, **GOOD),
        lambda z, t, m: bear_regularizer(z, t, valid=m, beam_width=3, xi=1.0),
    ]
    wrong = valid.clone()
    wrong[5, targets[5]] = False
    cases = [
        (logits[0], targets, valid, r"\[N,V\]"),
        (logits.long(), targets, valid, "float"),
        (logits, targets[:-1], valid, "targets"),
        (logits, targets.float(), valid, "targets"),
        (logits[:0], targets[:0], valid, "at least one row"),
        (logits, targets.masked_fill(targets == targets[0], v), valid, "targets must be in"),
        (logits, targets.masked_fill(targets == targets[0], -1), valid, "targets must be in"),
        (logits, targets, wrong, "row 5"),
        (logits, targets, valid[:, :-1], "valid must be"),
        (logits, targets, valid.long(), "valid must be"),
    ]
    for loss in losses:
        for z, t, m, message in cases:
            if loss is losses[0] and m is not valid:
                continue  # SFT has no mask
            with pytest.raises(ValueError, match=message):
                loss(z, t, m)


def test_regularizer_refuses_an_impossible_target() -> None:
    log_probs = torch.tensor([[0.0, -math.inf]])
    with pytest.raises(ValueError, match="-inf"):
        bear_regularizer(log_probs, torch.tensor([1]), beam_width=1, xi=1.0)
