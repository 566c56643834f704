"""Adapters that do something, as after training."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def stir(model: Model, std: float = 0.3, seed: int = 0) -> Model:
    """Fill LoRA's second matrices with noise: they begin at zero, so the adapter does nothing and the first
    ones have no gradient."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(std * torch.randn(weight.shape, generator=generator))
    return model
