"""What all preference losses share: the rewards of a window's answers, compared.

With log pi(y|x) the sum of the log-probabilities of y's tokens, its end of sequence among them, over the
whole vocabulary, pi_ref the frozen reference, y_w the target and y_l^1..y_l^M the window's other answers,

    r(y) = beta * (log pi(y|x) - log pi_ref(y|x)),      gap_j = r(y_l^j) - r(y_w)

Every loss of the family is a function of the gaps, so a constant factor that all answers of a window share
cancels. Losses are summed over windows and divided by the number of windows.

Axes: N answer tokens, A answers, R windows, M other answers of the window that has most, V vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from bearray.config import NegativeKind
from bearray.objectives.base import LossOutput, Metric, NegativeSpec, Objective, scalar
from bearray.objectives.ops import check_beam_width, check_positive, pick
from bearray.objectives.others import Others, answer_sums, answers_of
from bearray.objectives.tokens import Answers, AnswerTokens


@dataclass(frozen=True, eq=False)
class Gaps:
    """The others of each window against its target; windows without others are left out."""

    gap: Tensor
    """[R', M] r(other) - r(target), differentiable; -inf where a window has fewer than M others."""
    real: Tensor
    """[R', M] bool, False for that padding."""
    answer: Tensor
    """[R', M] int64, which answer the other is; 0 for padding."""
    target: Tensor
    """[R'] int64, which answer the target is."""

    @classmethod
    def of(cls, reward: Tensor, answers: Answers) -> Gaps:
        """From the rewards [A] of all answers."""
        others = Others.of(answers)
        gap = others.table(reward, -torch.inf) - reward[others.target][:, None]
        return cls(gap, others.real, others.answer, others.target)

    def metrics(self) -> dict[str, Metric]:
        """preference_accuracy: share of windows whose target's reward is above that of every other;
        reward_margin: by how much it is above the others' mean."""
        gap = self.gap.detach()
        windows = scalar(len(gap), gap)
        mean = gap.where(self.real, 0.0).sum(1) / self.real.sum(1)
        won = (gap.amax(1) < 0).sum().to(gap.dtype)
        return {"preference_accuracy": (won, windows), "reward_margin": (-mean.sum(), windows)}


class PreferenceObjective(Objective):
    """A loss of the gaps, summed over windows; subclasses give `losses`.

    Args:
        beta: scale of the reward; None: the class's `default_beta`.
        negatives: other answers for each window.
        negative_kind: who supplies them; None: the class's `default_kind`.
        beam_width: only for the pruning metrics.

    Raises:
        ConfigError: a value that cannot work.
    """

    needs = frozenset({"reference", "negatives"})
    per_window = True
    default_beta: float = 1.0
    default_kind: NegativeKind = "uniform"

    def __init__(
        self,
        *,
        beta: float | None = None,
        negatives: int = 3,
        negative_kind: NegativeKind | None = None,
        beam_width: int = 10,
    ) -> None:
        self.beta = self.default_beta if beta is None else check_positive("beta", beta)
        self.negatives = NegativeSpec(negative_kind or self.default_kind, negatives)
        self.beam_width = check_beam_width(beam_width)

    @abstractmethod
    def losses(self, gaps: Gaps, tokens: AnswerTokens) -> Tensor:
        """The loss of each window, [R']."""

    def __call__(self, tokens: AnswerTokens) -> LossOutput:
        log_probs, column = self.log_probs(tokens)
        return self.compare(tokens, pick(log_probs, column))

    def compare(self, tokens: AnswerTokens, log_p: Tensor) -> LossOutput:
        """The loss of answer tokens with log-probabilities `log_p` [N]."""
        answers = answers_of(tokens)
        log_ratio = log_p - self.extra(tokens, "reference").to(log_p.dtype)
        gaps = Gaps.of(self.beta * answer_sums(log_ratio, tokens), answers)
        total = self.losses(gaps, tokens).sum()
        metrics = self.common_metrics(tokens, -log_p) | gaps.metrics()
        return LossOutput(total, scalar(answers.num_windows, log_p), metrics)
