"""DROS: SASRec, made robust against a shift in which titles are popular.

    loss = SASRec's + alpha * sum over places l of b0 * log sum_t p_t exp(e(l, t) / b0)
    e(l, t) = (s(r(l, t)) - 1[t = s_{l+1}])^2                     s: sigmoid, r: score, s_{l+1}: next title
    p_t = (n_t + 1)^gamma / sum_u (n_u + 1)^gamma                 n_t: how often t is the next title

The last term of the first line is the largest mean error over all distributions of titles near the nominal
one p.

Yang et al., SIGIR 2023, doi 10.1145/3539618.3591624. `form="released"` is the term of the released code,
which differs from the paper in three ways: the errors are of the scores r themselves and not of
probabilities; p_t stands inside the exponent, exp(p_t e / b0), instead of before it, and is not normalised,
((n_t + 1) / sum_u (n_u + 1))^gamma; the factor b0 before the logarithm is missing. That code's default for
alpha is 0, which switches the term off; the weights here are those of a port by the authors of arXiv
2601.22925, which has the first two corrected.

Departures from the code: SASRec is that of `bearray.baselines.sasrec` (two blocks, scores by the title table
instead of a table of their own, trained at all places instead of the last one), and the term stands at each
place.

Axis letters: N places, W windows, L places of a history, T titles.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from bearray.baselines.data import Inputs
from bearray.baselines.sasrec import SASRec
from bearray.config import DROSConfig

Form = Literal["equation", "released"]


def nominal(counts: Tensor, gamma: float, form: Form) -> Tensor:
    """[T] float64 weights of the titles, p_t above, from how often each is the next title."""
    share = (counts.double() + 1) / (counts.double() + 1).sum()
    weights = share**gamma
    return weights / weights.sum() if form == "equation" else weights


def robust_term(scores: Tensor, targets: Tensor, weights: Tensor, *, beta: float, form: Form) -> Tensor:
    """The worst mean error near the nominal distribution, one for each row.

    Args:
        scores: [N, T] logits.
        targets: [N] title ids.
        weights: [T] `nominal`.
        beta: the robust radius b0.
        form: `equation` or `released`; see the module.

    Returns:
        [N]; computed as a log-sum-exp, so large scores do not overflow.
    """
    right = targets[:, None]
    if form == "equation":
        chance = scores.sigmoid()
        exponent = chance**2
        exponent = exponent.scatter(1, right, (chance.gather(1, right) - 1) ** 2) / beta + weights.log()
        return beta * exponent.logsumexp(1)
    exponent = scores**2
    exponent = exponent.scatter(1, right, (scores.gather(1, right) - 1) ** 2) * (weights / beta)
    return exponent.logsumexp(1)


class DROS(SASRec):
    """SASRec with the robust term.

    Args:
        counts: [T] how often each title is the next one in training.
        config: sizes, weights of the term, seed.
    """

    name = "dros"
    source = "Yang et al., SIGIR 2023, doi 10.1145/3539618.3591624"

    weights: Tensor

    def __init__(self, counts: Tensor, config: DROSConfig) -> None:
        super().__init__(len(counts), config)
        self.robust = config
        weights = nominal(counts, config.gamma, config.form).float()
        self.register_buffer("weights", weights, persistent=False)

    @classmethod
    def build(cls, inputs: Inputs, config: DROSConfig) -> DROS:  # type: ignore[override]
        return cls(inputs.data.label_counts(), config)

    def own_loss(self, hidden: Tensor, following: Tensor, negatives: Tensor) -> Tensor:
        """[N] the loss of N places, by what is known after each, its next title and an unseen one."""
        terms = super().own_loss(hidden, following, negatives)
        if self.robust.alpha > 0:
            terms = terms + self.robust.alpha * self.robust_term(hidden @ self.items.T, following)
        return terms

    def robust_term(self, scores: Tensor, targets: Tensor) -> Tensor:
        """[N] the term of each place, by its scores [N, T] and next title [N]."""
        return robust_term(scores, targets, self.weights, beta=self.robust.beta, form=self.robust.form)
