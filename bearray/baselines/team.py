"""The workers that train a baseline together, each on its share of every batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor, nn


@dataclass(frozen=True)
class Team:
    """Sums over the workers of a process group that is there already; alone, nothing is sent.

    Every method is a collective.
    """

    rank: int = 0
    world: int = 1

    def add(self, values: Tensor) -> Tensor:
        """The sum over all workers, in place."""
        if self.world > 1:
            torch.distributed.all_reduce(values)
        return values

    def add_gradients(self, model: nn.Module) -> None:
        """Replace each gradient by its sum over all workers, in one message."""
        if self.world == 1:
            return
        parameters = [p for p in model.parameters() if p.requires_grad]
        for parameter in parameters:
            if parameter.grad is None:  # a worker with an empty share
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self.add(torch.cat([g.reshape(-1) for g in gradients]))
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


ALONE = Team()
"""One process without a process group."""
