"""Objective (3.1): keep every prefix of the right title among the B best candidates of a real beam search.

arXiv 2601.22925, objective (3.1) asks for P(y_<=t | x) >= P(b^B_<=t | x) at every step t, where b^B is the
B-th candidate of beam search, and calls it impractical. With c_t = sum over k <= t of log p(y_k), theta_t
the B-th best candidate's log-probability after t tokens, held constant, and

    D_t = theta_t - c_t

the surrogate that is to (3.1) what (3.4) is to (3.2) (the paper gives no loss for it) is, over N tokens,

    equation   mean( -log p(y_t) + lam * log sigmoid(D_t / xi) )
    hinge      mean( -log p(y_t) - lam * log sigmoid(-D_t / xi) )

`equation` gives token k of a title the weight 1 + (lam / xi) * sum over t >= k of sigmoid(-D_t / xi), so
early tokens weigh most. Where beam search had fewer than B candidates nothing can be pruned: the term is 0.
A forced token has a term, too, since theta may change where c does not; over the trie's vocabulary it needs
no logits for that.

`mix` in [0, 1] blends the cumulative margin D_t with BEAR's own, log beta_t - log p(y_t): 0 is (3.1) alone, 1
is BEAR. It is ours, for the question whether the cheap condition loses anything.

Axis letters: N answer tokens, R windows, L tokens of the longest target, the end among them.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from bearray.config import Normalize, ObjectiveConfig
from bearray.errors import ConfigError
from bearray.objectives.base import LossOutput, Objective
from bearray.objectives.ops import beam_threshold, check_beam_width, check_positive, check_weight, pick
from bearray.objectives.tokens import AnswerTokens

SimulationForm = Literal["equation", "hinge"]


def cumulative(values: Tensor, instance: Tensor, step: Tensor, shape: tuple[int, int]) -> Tensor:
    """Running sums [R, L] along each answer of `values` [N], of which each has a row and a step; a step that
    has none adds nothing. `shape` is (R, L)."""
    return values.new_zeros(shape).index_put((instance, step), values).cumsum(1)


class BeamSimulation(Objective):
    """Needs `window_extras["thresholds"]` [R, L], theta after each token of each window's target (-inf behind
    its end), which the step takes from a beam search of width B in the same probability space, without
    dropout and without gradients.

    Args:
        lam, xi: weight and temperature of the regulariser, as BEAR's.
        beam_width: B.
        form: "equation" or "hinge".
        vocabulary: the softmax of loss and search: over the trie's valid next tokens, or over all.
        mix: share of BEAR's own margin.
    """

    name = "beam_simulation"
    source = "BEAR, arXiv 2601.22925, objective (3.1); surrogate by analogy with (3.4)"
    needs = frozenset({"trie", "thresholds"})

    def __init__(
        self,
        *,
        lam: float = 0.25,
        xi: float = 1.0,
        beam_width: int = 10,
        form: SimulationForm = "equation",
        vocabulary: Normalize = "trie",
        mix: float = 0.0,
    ) -> None:
        if form not in get_args(SimulationForm):
            raise ConfigError(f"form is {form!r}; beam_simulation has {', '.join(get_args(SimulationForm))}")
        if not 0 <= mix <= 1:
            raise ConfigError(f"mix is {mix!r}; it must be between 0 and 1")
        self.lam, self.xi = check_weight("lam", lam), check_positive("xi", xi)
        self.beam_width, self.form = check_beam_width(beam_width), form
        self.vocabulary, self.mix = vocabulary, float(mix)
        self.candidates_only = vocabulary == "trie"
        self.positions = "branching" if vocabulary == "trie" else "all"

    @classmethod
    def from_config(cls, config: ObjectiveConfig) -> BeamSimulation:
        if config.form == "released":
            raise ConfigError(
                "objective.form is 'released', but objective 'beam_simulation' was never released; "
                "it has equation and hinge"
            )
        return cls(
            lam=config.lam,
            xi=config.xi,
            beam_width=config.beam_width,
            form=config.form,
            vocabulary=config.vocabulary,
            mix=config.mix,
        )

    def __call__(self, tokens: AnswerTokens) -> LossOutput:
        log_probs, column = self.log_probs(tokens)
        log_p = pick(log_probs, column)
        thresholds = self.window_extra(tokens, "thresholds").to(log_p.dtype)
        prunable = thresholds != -torch.inf  # NaN is a threshold: the loss is to show it
        reached = cumulative(log_p, tokens.instance, tokens.step, (thresholds.shape[0], thresholds.shape[1]))
        margin = torch.where(prunable, thresholds, 0.0) - reached
        regularizer = self._penalty(margin).where(prunable, 0.0).sum()
        if self.mix:
            own = self._penalty(beam_threshold(log_probs, self.beam_width) - log_p).sum()
            own = own + tokens.skipped * self._penalty(log_p.new_zeros(()))  # a forced token has no margin
            regularizer = (1 - self.mix) * regularizer + self.mix * own
        metrics = self.common_metrics(tokens, -log_p)
        count = log_p.new_tensor(float(tokens.num_answer_tokens))
        pruned = ((margin > 0) & prunable).detach()
        metrics["regularizer"] = (regularizer.detach(), count)
        metrics["below_beam"] = (pruned.sum().to(count.dtype), prunable.sum().to(count.dtype))
        return LossOutput(self.lam * regularizer - log_p.sum(), count, metrics)

    def _penalty(self, margin: Tensor) -> Tensor:
        if self.form == "equation":
            return F.logsigmoid(margin / self.xi)
        return -F.logsigmoid(-margin / self.xi)
