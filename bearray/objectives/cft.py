"""CFT: what the history adds to the prediction, as a second loss (Zhang et al. 2024, arXiv 2410.22809).

With z_t the logits behind the prompt and z0_t those behind the same prompt without the history, at the same
token of the same answer, softmaxes over the whole vocabulary:

    L_n = sum_t omega_t * -log softmax(z_t)[y_t] / sum_t omega_t
    L_c = sum_t omega_t * -log softmax(z_t - z0_t)[y_t] / sum_t omega_t
    L   = L_n + contrast * L_c,                          contrast = 0.1

    omega_k = 1 - (k - 1) * (1 - b) / (n - 1),  k = 1..n over an answer's tokens, its end among them, b = 0.25

so early tokens weigh most. Both terms are weighted, as in the published code; the paper's text was not at
hand. Nothing is detached: the prompt without a history is trained, too.

Departures: the two prompts' answers are paired by the batch, not found at end-of-sequence tokens; sums and
divisor run over the whole optimiser step, not over each device's share; an answer of one token, where the
published code divides by 0, has the weight (1 + b) / 2, the mean of all others.

Axes: N answer tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bearray.config import ObjectiveConfig
from bearray.errors import ConfigError
from bearray.objectives.base import LossOutput, Objective
from bearray.objectives.ops import check_beam_width, check_weight, log_softmax, mask_out, pick
from bearray.objectives.tokens import AnswerTokens


def position_weights(step: Tensor, length: Tensor, last: float) -> Tensor:
    """omega: 1 at an answer's first token, falling linearly to `last` at its end.

    Args:
        step: [N] position of each token in its answer, from 0; of the type that the weights are to have.
        length: [N] tokens of its answer.
        last: b.
    """
    falling = 1 - step * (1 - last) / (length - 1).clamp_min(1)
    return falling.where(length > 1, (1 + last) / 2)


class CFT(Objective):
    """Counterfactual fine-tuning. Needs `AnswerTokens.logits_without_history`.

    Args:
        contrast: weight of L_c, at least 0.
        last_weight: b, in [0, 1]; None: 0.25.
        beam_width: only for the pruning metrics.

    Raises:
        ConfigError: a value that cannot work.
    """

    name = "cft"
    source = "CFT, Zhang et al. 2024, arXiv 2410.22809"
    needs = frozenset({"without_history"})

    def __init__(
        self, *, contrast: float = 0.1, last_weight: float | None = None, beam_width: int = 10
    ) -> None:
        last_weight = 0.25 if last_weight is None else last_weight
        if not 0 <= last_weight <= 1:
            raise ConfigError(f"last_weight is {last_weight!r}; it must be between 0 and 1")
        self.contrast, self.last_weight = check_weight("contrast", contrast), float(last_weight)
        self.beam_width = check_beam_width(beam_width)

    @classmethod
    def from_config(cls, config: ObjectiveConfig) -> CFT:
        return cls(contrast=config.contrast, last_weight=config.last_weight, beam_width=config.beam_width)

    def weight_of(self, num_tokens: int, num_branching: int, num_windows: int = 0) -> float:
        return num_tokens * (1 + self.last_weight) / 2  # the mean of omega over an answer of any length

    def __call__(self, tokens: AnswerTokens) -> LossOutput:
        other = tokens.logits_without_history
        if other is None or other.shape != tokens.logits.shape:
            raise ConfigError(
                "objective 'cft' needs the logits without a history, which the training step did not provide"
            )
        log_probs, column = self.log_probs(tokens)
        nll = -pick(log_probs, column)
        difference = mask_out(tokens.logits, None) - mask_out(other, None)
        contrastive = -pick(log_softmax(difference), column)
        length = torch.bincount(tokens.instance)[tokens.instance] if len(nll) else tokens.instance
        weights = position_weights(tokens.step.to(nll.dtype), length, self.last_weight)
        metrics = self.common_metrics(tokens, nll)
        metrics["contrastive"] = ((weights * contrastive).detach().sum(), weights.sum())
        total = (weights * (nll + self.contrast * contrastive)).sum()
        return LossOutput(total, weights.sum(), metrics)
