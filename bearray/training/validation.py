"""Validation in the training workers: the model as it stands decodes the validation windows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn

from bearray.config import DecodingConfig
from bearray.errors import BearrayError
from bearray.metrics import hit_ratio, ndcg
from bearray.recommend import DecoderInputs, recommend, target_ranks
from bearray.task import Case

K = 10
"""Cut-off of the validation metrics, the paper's."""


def validate(
    model: nn.Module,
    cases: Sequence[Case],
    decoding: DecodingConfig,
    inputs: DecoderInputs,
    *,
    expected: int,
) -> dict[str, float]:
    """HR@10 and NDCG@10 over all workers' shares; a collective where there are several workers.

    Raises:
        BearrayError: fewer or more cases were decoded than there are.
    """
    titles, _ = recommend(model, cases, decoding, inputs)
    ranks = target_ranks(cases, titles)
    n = len(ranks)
    sums = [n, n * hit_ratio(ranks, K), n * ndcg(ranks, K)] if n else [0.0, 0.0, 0.0]
    total = torch.tensor(sums, dtype=torch.float64, device=inputs.device)
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(total)
    if int(total[0]) != expected:
        raise BearrayError(f"validation decoded {int(total[0])} windows of {expected}")
    return {
        "valid_n": float(total[0]),
        "valid_hr@10": float(total[1] / total[0]),
        "valid_ndcg@10": float(total[2] / total[0]),
    }
