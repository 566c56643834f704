"""The rank reward of MiniOneRec for the rollouts of a window.

A window's rollouts are what beam search finds, best first. With G of them, numbered i = 0 .. G-1,

    r_i = 1                                                    where rollout i is the target
    r_i = -d_i / sum_{k=0..G-1} d_k,   d_i = 1 / log2(i + 2)   else, if the target is among the rollouts
    r_i = 0                                                    else, if it is not

A wrong title costs the more the higher it ranks, and a window that missed says nothing. The sum runs over all
places, the target's own among them, as in the released code (Kong et al., "MiniOneRec", arXiv 2510.24431).
Departure: G is the number of titles that the search found, which may be fewer than were asked for.

Axes: R' windows with rollouts, M rollouts of the window that has most.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bearray.objectives.base import Metric
from bearray.objectives.others import Others


def rank_rewards(rollouts: Others) -> Tensor:
    """r of each rollout, [R', M] float64; 0 for padding."""
    discount = _discounts(rollouts) * rollouts.real
    penalty = discount / discount.sum(1, keepdim=True)
    found = rollouts.is_right.any(1, keepdim=True)
    return torch.where(rollouts.is_right, 1.0, -penalty.where(found, 0.0))


def _discounts(rollouts: Others) -> Tensor:
    """d of each place, [M] float64."""
    place = torch.arange(rollouts.real.shape[1], dtype=torch.float64, device=rollouts.real.device)
    return 1 / (place + 2).log2()


def rollout_metrics(rollouts: Others, windows: Tensor) -> dict[str, Metric]:
    """rollout_hit: share of the `windows` (a count) whose target is among its rollouts; rollout_ndcg: the
    mean of d at its place, 0 where it was missed."""
    gain = (_discounts(rollouts) * rollouts.is_right).sum()
    hits = rollouts.is_right.any(1).sum()
    return {"rollout_hit": (hits.to(windows), windows), "rollout_ndcg": (gain.to(windows), windows)}
