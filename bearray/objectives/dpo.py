"""DPO with one negative a window (Rafailov et al., NeurIPS 2023, arXiv 2305.18290).

    L = -log sigmoid( r(y_w) - r(y_l) ) = softplus(gap),     mean over windows

with the gap of `bearray.objectives.preference`. Beta is 0.1 unless set, the value of DPO's paper and of
SPRec; the negative is uniform over the catalogue unless set.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from bearray.config import NegativeKind, ObjectiveConfig
from bearray.objectives.preference import Gaps, PreferenceObjective
from bearray.objectives.tokens import AnswerTokens


class DPO(PreferenceObjective):
    """Direct preference optimisation; arguments as `PreferenceObjective`, with one negative."""

    name = "dpo"
    source = "DPO, Rafailov et al., NeurIPS 2023, arXiv 2305.18290"
    default_beta = 0.1

    def __init__(
        self,
        *,
        beta: float | None = None,
        negative_kind: NegativeKind | None = None,
        beam_width: int = 10,
    ) -> None:
        super().__init__(beta=beta, negatives=1, negative_kind=negative_kind, beam_width=beam_width)

    @classmethod
    def from_config(cls, config: ObjectiveConfig) -> DPO:
        return cls(beta=config.beta, negative_kind=config.negative_kind, beam_width=config.beam_width)

    def losses(self, gaps: Gaps, tokens: AnswerTokens) -> Tensor:
        return F.softplus(gaps.gap[:, 0])
