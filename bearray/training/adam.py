"""What is trained, and the Adam that trains it.

Its state travels as full, unpartitioned float32 tensors under parameter names: a checkpoint written by four
ZeRO-3 workers restores on one DDP worker, and it is plain safetensors, never a pickle.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bearray.backbones.soft import soft_embedding
from bearray.config import TrainConfig

PROJECTORS = "projectors"
MOMENTS = ("exp_avg", "exp_avg_sq")


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """What is trained, for an optimiser; the projectors of soft tokens are a group of their own, called
    PROJECTORS, so that they can rest."""
    soft = soft_embedding(module)
    projectors = {id(p) for p in soft.trained().values()} if soft is not None else set()
    parameters = trainable(module).values()
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if id(p) not in projectors], "name": "adapter"},
        {"params": [p for p in parameters if id(p) in projectors], "name": PROJECTORS},
    ]
    return [group for group in groups if group["params"]]


def adamw(module: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """The optimiser of all that is trained."""
    return torch.optim.AdamW(parameter_groups(module), lr=config.lr, weight_decay=config.weight_decay)


def set_rates(optimizer: Any, lr: float, *, projectors_rest: bool) -> None:
    """Set the learning rate of all groups, 0 of projectors that rest."""
    for group in optimizer.param_groups:
        group["lr"] = 0.0 if projectors_rest and group["name"] == PROJECTORS else lr


def adam_state(
    optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter]
) -> dict[str, torch.Tensor]:
    """Moments of an unpartitioned optimiser by parameter name."""
    if not optimizer.state:
        return fresh_adam_state(parameters)
    state = {
        f"{moment}.{name}": optimizer.state[p][moment].detach().cpu().clone()
        for moment in MOMENTS
        for name, p in parameters.items()
    }
    state["step"] = optimizer.state[next(iter(parameters.values()))]["step"].detach().cpu().clone().float()
    return state


def fresh_adam_state(parameters: dict[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    """Of an optimiser that has not updated anything."""
    state = {
        f"{moment}.{name}": torch.zeros(getattr(p, "ds_shape", p.shape))  # partitioned ones look empty
        for moment in MOMENTS
        for name, p in parameters.items()
    }
    return state | {"step": torch.tensor(0.0)}


def load_adam_state(
    optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], state: dict[str, torch.Tensor]
) -> None:
    for name, p in parameters.items():
        slot = {moment: state[f"{moment}.{name}"].to(p.device, p.dtype).clone() for moment in MOMENTS}
        optimizer.state[p] = {"step": state["step"].clone().float(), **slot}
