"""S-DPO: the target against several negatives at once (Chen et al., NeurIPS 2024, arXiv 2406.09215).

    L = -log sigmoid( -log sum_j exp(gap_j) ) = softplus( logsumexp_j gap_j ),     mean over windows

with the gaps of `bearray.objectives.preference`. With one negative it is DPO. As in the published code:
log-probabilities are sums over the title's tokens and its end, over the whole vocabulary; 3 negatives; beta
1, its training script's value. Departures: logsumexp in place of the sum of exponentials, which overflows;
negatives are drawn from the whole catalogue, because there is no candidate list in the prompt, and anew at
every step.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from bearray.config import ObjectiveConfig
from bearray.objectives.preference import Gaps, PreferenceObjective
from bearray.objectives.tokens import AnswerTokens


class SDPO(PreferenceObjective):
    """Softmax-DPO; arguments as `PreferenceObjective`."""

    name = "sdpo"
    source = "S-DPO, Chen et al., NeurIPS 2024, arXiv 2406.09215"

    @classmethod
    def from_config(cls, config: ObjectiveConfig) -> SDPO:
        return cls(
            beta=config.beta,
            negatives=config.negatives,
            negative_kind=config.negative_kind,
            beam_width=config.beam_width,
        )

    def losses(self, gaps: Gaps, tokens: AnswerTokens) -> Tensor:
        return F.softplus(gaps.gap.logsumexp(1))
