"""DMPO: DPO against the summed advantage of several negatives, as implemented with Flower (arXiv 2503.07377).

    L = -log sigmoid( -sum_j gap_j ) = softplus( sum_j gap_j ),     mean over windows

with the gaps of `bearray.objectives.preference`. It is a sum and not a mean over negatives, as in that
code, so beta and the number of negatives are not independent. After Bai et al., "Finetuning Large Language
Model for Personalized Ranking", arXiv 2405.16127, whose own code was not at hand. Beta is 0.3 unless set,
which is borrowed: the same code uses it for its other preference losses; DMPO's own is not known here.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from bearray.config import ObjectiveConfig
from bearray.objectives.preference import Gaps, PreferenceObjective
from bearray.objectives.tokens import AnswerTokens


class DMPO(PreferenceObjective):
    """Direct multi-preference optimisation; arguments as `PreferenceObjective`."""

    name = "dmpo"
    source = "DMPO, Bai et al. 2024, arXiv 2405.16127, as in Flower's code, arXiv 2503.07377"
    default_beta = 0.3

    @classmethod
    def from_config(cls, config: ObjectiveConfig) -> DMPO:
        return cls(
            beta=config.beta,
            negatives=config.negatives,
            negative_kind=config.negative_kind,
            beam_width=config.beam_width,
        )

    def losses(self, gaps: Gaps, tokens: AnswerTokens) -> Tensor:
        return F.softplus(gaps.gap.where(gaps.real, 0.0).sum(1))
