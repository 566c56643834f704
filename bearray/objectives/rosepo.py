"""RosePO: DPO with smoothed preferences, after Liao et al., "RosePO", arXiv 2410.12519.

    L = (1 - eps) * softplus(gap) + eps * softplus(-gap),     mean over windows

with the gap of `bearray.objectives.preference` and one negative a window, and eps the probability that the
preference is the wrong way round:

- `smoothing` a number: eps is that number for every pair;
- `smoothing` None: eps = sigmoid(s(y_l) - s(y_w)), s the scores that a text-free model (the oracle) gives
  the two titles for this window, from `window_extras["user_scores"]`: the probability that the oracle
  prefers y_l.

The paper's code was not at hand: the loss and its eps are from descriptions of it. There eps is an oracle's,
pair by pair; the Bradley-Terry form of the oracle is ours, and so is one eps for all pairs. The default, 0.1,
is such a one, because it needs no second model: it is no published value. The negative is drawn by training
popularity, near the history's titles ("near"), or is the model's own best wrong title ("self"); popularity
and beta 0.3 are what Flower's port uses, which has no smoothing. RosePO's own beta is not known here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bearray.config import NegativeKind, ObjectiveConfig
from bearray.errors import ConfigError
from bearray.objectives.others import answers_of
from bearray.objectives.preference import Gaps, PreferenceObjective
from bearray.objectives.tokens import AnswerTokens


class RosePO(PreferenceObjective):
    """Smoothed personalised preference optimisation.

    Args:
        smoothing: eps in [0, 0.5), or None for the oracle's, as in the source; needs "user_scores" then.
        beta, negative_kind, beam_width: as `PreferenceObjective`, with one negative.

    Raises:
        ConfigError: a value that cannot work.
    """

    name = "rosepo"
    source = "after RosePO, Liao et al. 2024, arXiv 2410.12519"
    default_beta = 0.3
    default_kind: NegativeKind = "popularity"

    def __init__(
        self,
        *,
        smoothing: float | None = 0.1,
        beta: float | None = None,
        negative_kind: NegativeKind | None = None,
        beam_width: int = 10,
    ) -> None:
        super().__init__(beta=beta, negatives=1, negative_kind=negative_kind, beam_width=beam_width)
        if smoothing is None:
            self.needs = self.needs | {"user_scores"}
        elif not 0 <= smoothing < 0.5:
            raise ConfigError(f"smoothing is {smoothing!r}; it must be in [0, 0.5), or None")
        self.smoothing = smoothing

    @classmethod
    def from_config(cls, config: ObjectiveConfig) -> RosePO:
        return cls(
            smoothing=config.smoothing,
            beta=config.beta,
            negative_kind=config.negative_kind,
            beam_width=config.beam_width,
        )

    def losses(self, gaps: Gaps, tokens: AnswerTokens) -> Tensor:
        gap = gaps.gap[:, 0]
        eps = self._flipped(gaps, tokens).to(gap.dtype)
        return (1 - eps) * F.softplus(gap) + eps * F.softplus(-gap)

    def _flipped(self, gaps: Gaps, tokens: AnswerTokens) -> Tensor:
        """eps [R']."""
        if self.smoothing is not None:
            return gaps.gap.new_full((len(gaps.gap),), self.smoothing)
        answers = answers_of(tokens)
        scores = self.window_extra(tokens, "user_scores")[answers.window, answers.title]  # [A]
        return torch.sigmoid(scores[gaps.answer[:, 0]] - scores[gaps.target]).detach()
