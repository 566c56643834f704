"""Sums over workers: what a step came to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from bearray.objectives import LossOutput


def summed(value: torch.Tensor, world: int) -> torch.Tensor:
    """The sum of a tensor over `world` workers, the same on each; a collective where there are several."""
    if world > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


@dataclass(frozen=True)
class StepSums:
    """A step's loss and metrics over all micro-batches and workers."""

    loss: float
    metrics: dict[str, float | None]
    """Means; None where nothing counts."""
    stats: torch.Tensor | None
    """For `Objective.end_step`."""

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss)

    @classmethod
    def of(cls, outputs: Sequence[LossOutput], world: int) -> StepSums:
        """Add up micro-batches, as the loss returned them, and workers; one all-reduce."""
        names = sorted(outputs[0].metrics)
        flat = [
            torch.stack([o.total.detach(), o.weight, *(x for n in names for x in o.metrics[n])]).double()
            for o in outputs
        ]
        values = torch.stack(flat).sum(0)
        stats = [o.stats.double() for o in outputs if o.stats is not None]
        if stats:
            values = torch.cat([values, torch.stack(stats).sum(0).flatten()])
        values = summed(values, world).cpu()
        width = 2 + 2 * len(names)
        total, weight, *pairs = values[:width].tolist()
        return cls(
            loss=total / max(weight, 1e-8),
            metrics={
                name: value / count if count else None
                for name, value, count in zip(names, pairs[::2], pairs[1::2], strict=True)
            },
            stats=values[width:].reshape(stats[0].shape) if stats else None,
        )
