"""The other answers of each window as a padded table: what losses that compare a window's answers share.

Axes: N answer tokens, A answers, R' windows that have other answers, M other answers of the window that has
most.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bearray.objectives.tokens import Answers, AnswerTokens


def answers_of(tokens: AnswerTokens) -> Answers:
    """The table of answers.

    Raises:
        ValueError: there is none, so nothing says which answers belong together.
    """
    if tokens.answers is None:
        raise ValueError(
            "losses that compare answers need AnswerTokens.answers, which says whose each answer is"
        )
    return tokens.answers


def answer_sums(values: Tensor, tokens: AnswerTokens) -> Tensor:
    """Sums of [N] values over the tokens of each answer: [A]."""
    return values.new_zeros(len(answers_of(tokens).title)).index_add(0, tokens.instance, values)


@dataclass(frozen=True, eq=False)
class Others:
    """Which answers a window has beside its target, in their order; windows without any are left out."""

    answer: Tensor
    """[R', M] int64, which answer each is; 0 for padding."""
    real: Tensor
    """[R', M] bool, False for padding."""
    target: Tensor
    """[R'] int64, which answer the window's target is."""
    is_right: Tensor
    """[R', M] bool: it spells the title of the target, which rollouts may find."""

    @classmethod
    def of(cls, answers: Answers) -> Others:
        """From the table of answers, in which those of a window stand side by side, its target first."""
        other = (~answers.is_target).nonzero()[:, 0]
        windows, row, counts = answers.window[other].unique_consecutive(
            return_inverse=True, return_counts=True
        )
        target = answers.is_target.nonzero()[:, 0][windows]  # one target a window, in the windows' order
        width = int(counts.max()) if len(counts) else 1
        first = counts.cumsum(0) - counts
        column = torch.arange(len(other), device=other.device) - first[row]
        answer = other.new_zeros(len(windows), width).index_put((row, column), other)
        real = torch.zeros_like(answer, dtype=torch.bool).index_put((row, column), torch.ones_like(other) > 0)
        right = (answers.title[answer] == answers.title[target][:, None]) & real
        return cls(answer, real, target, right)

    def table(self, values: Tensor, fill: float) -> Tensor:
        """[A] values as [R', M], with `fill` for padding; differentiable."""
        return values[self.answer].masked_fill(~self.real, fill)
