"""D2LR-IPS: SFT with answers weighted by the inverse popularity of their item.

    w_i = (sum_j n_j / max(n_i, 1))^T,    L = mean_i( w_i * l_i ) / mean_i( w_i )

with n_i how often the target item of answer i is in the training histories and targets, and l_i the mean
cross-entropy of the answer's tokens. The means are over the answers of an optimiser step, so sum_j n_j
cancels.

After Lu et al., "Dual Debiasing in LLM-based Recommendation", SIGIR 2025, whose code is not public. This is
the inverse-propensity form with T = 0.1 that BEAR's lead author uses for item-id models, carried over to
tokens; the second, token-level debiasing of the original is not part of it, hence the name.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from bearray.config import ObjectiveConfig
from bearray.objectives.base import LossOutput, Objective
from bearray.objectives.ops import check_beam_width, check_weight, pick
from bearray.objectives.tokens import AnswerTokens


class D2LR(Objective):
    """Needs `extras["popularity"]`: [N] training count of the item that each token's answer names.

    Args:
        power: T; 0 weights all answers alike; None: 0.1.
        beam_width: only for the pruning metrics.
    """

    name = "d2lr"
    source = "D2LR-IPS, after Lu et al., Dual Debiasing in LLM-based Recommendation, SIGIR 2025"
    needs = frozenset({"popularity"})
    weight_from = "extras"

    def __init__(self, *, power: float | None = None, beam_width: int = 10) -> None:
        self.power = 0.1 if power is None else check_weight("power", power)
        self.beam_width = check_beam_width(beam_width)

    @classmethod
    def from_config(cls, config: ObjectiveConfig) -> D2LR:
        return cls(power=config.power, beam_width=config.beam_width)

    def __call__(self, tokens: AnswerTokens) -> LossOutput:
        log_probs, column = self.log_probs(tokens)
        nll = -pick(log_probs, column)
        popularity = self.extra(tokens, "popularity").to(nll.dtype)
        weights = self.token_weights({"popularity": popularity}, tokens.instance)
        return LossOutput((weights * nll).sum(), weights.sum(), self.common_metrics(tokens, nll))

    def token_weights(self, extras: Mapping[str, Tensor], instance: Tensor) -> Tensor:
        _, answer, length = instance.unique(return_inverse=True, return_counts=True)
        popularity = extras["popularity"]
        if not popularity.is_floating_point():
            popularity = popularity.float()
        # A token carries its answer's weight divided by the answer's length: summed over tokens, w_i * l_i.
        return popularity.clamp_min(1.0).pow(-self.power) / length[answer]
