"""BEAR: keep every token of the right title among the B best next tokens (arXiv 2601.22925, section 4).

With p the softmax of logits / tau over the valid next tokens (or over the vocabulary), B the beam width,
beta_t the B-th largest probability at step t, held constant (detached), and

    margin_t = log beta_t - log p(y_t)

the condition (3.2) is margin_t <= 0. Three spellings of the loss over the N answer tokens:

    equation   mean( -log p(y_t) + lam * log sigmoid(margin_t / xi) )            (3.4), (3.5)
    hinge      mean( -log p(y_t) - lam * log sigmoid(-margin_t / xi) )
    released   sum( w_t * -log p(y_t) ) / (sum of w_t over tokens with a choice + 1e-8),
               w_t = 1 + lam * sigmoid(-margin_t / xi), held constant

`equation` is the paper's formula. Its gradient is SFT's with each token weighted by 1 + (lam / xi) *
sigmoid(-margin_t / xi): most on tokens that are already safe. `released` is the authors' code: the same
weights without 1/xi, normalised by their sum. `hinge` is the penalty that (3.2) suggests: most on tokens
that violate it.

Where fewer than B tokens are valid, nothing can be pruned; beta_t is then the smallest valid probability, as
in the published code. A forced token (one valid next token) has margin 0 and so a constant loss:
lam * log sigmoid(0), -lam * log sigmoid(0) for the hinge, 0 as released.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from bearray.config import Form, Normalize, ObjectiveConfig
from bearray.errors import ConfigError
from bearray.objectives.base import LossOutput, Objective, scalar
from bearray.objectives.ops import (
    beam_threshold,
    check_beam_width,
    check_positive,
    check_rows,
    check_weight,
    log_softmax,
    mask_out,
    pick,
)
from bearray.objectives.tokens import AnswerTokens


def _penalty(margin: Tensor, xi: float, form: Form) -> Tensor:
    return F.logsigmoid(margin / xi) if form == "equation" else -F.logsigmoid(-margin / xi)


def _token_weights(margin: Tensor, lam: float, xi: float) -> Tensor:
    return 1.0 + lam * torch.sigmoid(-margin.detach() / xi)


def _check_form(form: str, allowed: tuple[str, ...]) -> None:
    if form not in allowed:
        raise ConfigError(f"form is {form!r}; it must be one of {', '.join(allowed)}")


def bear_regularizer(
    log_probs: Tensor,
    targets: Tensor,
    *,
    beam_width: int,
    xi: float,
    valid: Tensor | None = None,
    form: Literal["equation", "hinge"] = "equation",
) -> Tensor:
    """BEAR's regulariser of each token, equation (3.4) or its hinge.

    Args:
        log_probs: [N,V] log-probabilities, any float type; `-inf` marks a token that cannot come.
        targets: [N] token ids.
        beam_width: B. xi: temperature of the sigmoid, above 0.
        valid: [N,V] bool, the tokens that count for the threshold; None: all.
        form: "equation" gives log sigmoid(margin / xi), "hinge" gives -log sigmoid(-margin / xi).

    Returns:
        [N], differentiable through the target's log-probability; the threshold is held constant.

    Raises:
        ConfigError: `xi` not above 0, `beam_width` below 1, an unknown form.
        ValueError: no rows, shapes that do not fit, or a target that is not valid.
    """
    check_beam_width(beam_width)
    check_positive("xi", xi)
    _check_form(form, ("equation", "hinge"))
    check_rows(log_probs, targets, valid, name="log_probs")
    log_probs = mask_out(log_probs, valid)
    log_p = pick(log_probs, targets.long())
    if bool((log_p == -math.inf).any()):
        raise ValueError("a target has log-probability -inf; targets must be possible tokens")
    return _penalty(beam_threshold(log_probs, beam_width) - log_p, xi, form)


def bear_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    lam: float,
    xi: float,
    beam_width: int = 10,
    valid: Tensor | None = None,
    form: Form = "equation",
    tau: float = 1.0,
) -> Tensor:
    """BEAR's loss, as the module's docstring defines it.

    Args:
        logits: [N,V], any float type; computed in float32, or float64 if given.
        targets: [N] token ids.
        lam: weight of the regulariser, at least 0. xi: temperature of the sigmoid, above 0.
        beam_width: B.
        valid: [N,V] bool, the valid next tokens that the softmax is over; None: all.
        form: "equation", "released" or "hinge".
        tau: temperature of the softmax.

    Returns:
        A differentiable scalar.

    Raises:
        ConfigError: `lam` below 0, `xi` or `tau` not above 0, `beam_width` below 1, an unknown form.
        ValueError: no rows, shapes that do not fit, or a target that is not valid.
    """
    check_weight("lam", lam)
    check_positive("xi", xi)
    check_positive("tau", tau)
    check_beam_width(beam_width)
    _check_form(form, get_args(Form))
    check_rows(logits, targets, valid)
    log_probs = log_softmax(mask_out(logits, valid), tau)
    log_p = pick(log_probs, targets.long())
    margin = beam_threshold(log_probs, beam_width) - log_p
    if form != "released":
        return (-log_p + lam * _penalty(margin, xi, form)).mean()
    weights = _token_weights(margin, lam, xi)
    choices = logits.shape[1] if valid is None else valid.sum(dim=1)
    counted = weights * torch.as_tensor(choices > 1, device=weights.device)
    return -(weights * log_p).sum() / (counted.sum() + 1e-8)


class BEAR(Objective):
    """`bear_loss` for the training step, over the trie's valid tokens (as released) or the full vocabulary.

    Over the trie, forced tokens need no logits (`positions` is "branching"); their constant is added, so
    that the loss equals `bear_loss` over all answer tokens. The metric `regularizer` is the mean
    regulariser per answer token; for `form="released"`, which has none, the mean of sigmoid(-margin / xi)
    over the tokens in the divisor.
    """

    name = "bear"
    source = "BEAR, WWW 2026, arXiv 2601.22925"
    needs = frozenset({"trie"})

    def __init__(
        self,
        *,
        lam: float = 0.25,
        xi: float = 1.0,
        beam_width: int = 10,
        form: Form = "equation",
        vocabulary: Normalize = "trie",
        tau: float = 1.0,
    ) -> None:
        self.lam = check_weight("lam", lam)
        self.xi = check_positive("xi", xi)
        self.tau = check_positive("tau", tau)
        self.beam_width = check_beam_width(beam_width)
        _check_form(form, get_args(Form))
        self.form: Form = form
        self.vocabulary = vocabulary
        self.positions = "branching" if vocabulary == "trie" else "all"
        self.candidates_only = vocabulary == "trie"
        self.weight_from = "logits" if form == "released" else "counts"

    @classmethod
    def from_config(cls, config: ObjectiveConfig) -> BEAR:
        return cls(
            lam=config.lam,
            xi=config.xi,
            beam_width=config.beam_width,
            form=config.form,
            vocabulary=config.vocabulary,
            tau=config.tau,
        )

    def __call__(self, tokens: AnswerTokens) -> LossOutput:
        log_probs, column = self.log_probs(tokens, self.tau)
        log_p = pick(log_probs, column)
        margin = beam_threshold(log_probs, self.beam_width) - log_p
        metrics = self.common_metrics(tokens, -log_p)
        if self.form == "released":
            weights = _token_weights(margin, self.lam, self.xi)
            # Over the vocabulary every token has a choice; over the trie the branching ones do.
            counted = (
                tokens.is_branching if self.vocabulary == "trie" else torch.ones_like(tokens.is_branching)
            )
            safety = torch.sigmoid(-margin.detach() / self.xi) * counted
            metrics["regularizer"] = (safety.sum(), counted.sum().to(safety.dtype))
            return LossOutput(-(weights * log_p).sum(), (weights * counted).sum(), metrics)
        penalty = _penalty(margin, self.xi, self.form).sum()
        forced = math.log(0.5) if self.form == "equation" else -math.log(0.5)
        penalty = penalty + tokens.skipped * forced
        weight = scalar(tokens.num_answer_tokens, log_p)
        metrics["regularizer"] = (penalty.detach(), weight)
        return LossOutput(-log_p.sum() + self.lam * penalty, weight, metrics)
