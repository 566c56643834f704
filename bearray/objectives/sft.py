"""Supervised fine-tuning: the cross-entropy of the answer's tokens over the whole vocabulary.

    L = mean over answer tokens t of -log p(y_t | x, y_<t)                                     (2.1)

The "BIGRec" rows of arXiv 2601.22925; Bao et al., arXiv 2308.08434. The mean is over tokens (title, quotes
and end of sequence), not over instances, as in the published code.
"""

from __future__ import annotations

from torch import Tensor

from bearray.config import ObjectiveConfig
from bearray.objectives.base import LossOutput, Objective, scalar
from bearray.objectives.ops import as_float, check_beam_width, check_rows, log_softmax, pick
from bearray.objectives.tokens import AnswerTokens


def sft_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy.

    Args:
        logits: [N,V], any float type; computed in float32, or float64 if given.
        targets: [N] token ids.

    Returns:
        A differentiable scalar.

    Raises:
        ValueError: no rows, shapes that do not fit, or a target outside the vocabulary.
    """
    check_rows(logits, targets, None)
    return -pick(log_softmax(as_float(logits)), targets.long()).mean()


class SFT(Objective):
    """`sft_loss` for the training step. `beam_width` is only for the pruning metrics."""

    name = "sft"
    source = "Bao et al., BIGRec, TORS 2025, arXiv 2308.08434"

    def __init__(self, *, beam_width: int = 10) -> None:
        self.beam_width = check_beam_width(beam_width)

    @classmethod
    def from_config(cls, config: ObjectiveConfig) -> SFT:
        return cls(beam_width=config.beam_width)

    def __call__(self, tokens: AnswerTokens) -> LossOutput:
        log_probs, column = self.log_probs(tokens)
        nll = -pick(log_probs, column)
        return LossOutput(nll.sum(), scalar(tokens.num_answer_tokens, nll), self.common_metrics(tokens, nll))
