"""What updates the adapter: DeepSpeed ZeRO 0 to 3, or plain DDP where DeepSpeed is not installed.

Both take the same calls, so the loop does not know which one runs.
"""

from __future__ import annotations

import importlib.util
import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn

from bearray.config import TrainConfig
from bearray.errors import ConfigError
from bearray.training.adam import adam_state, adamw, load_adam_state, set_rates, trainable
from bearray.training.zero import DeepSpeedEngine


class Engine(Protocol):
    """Runs forward and backward passes of a module over all workers and updates its trainable parameters."""

    module: nn.Module

    def __call__(self, *args: Any) -> Any: ...

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """Add the loss's gradient; losses of all workers and micro-batches are SUMMED. `last` ends a step."""

    def step(self, lr: float, *, projectors_rest: bool = False) -> bool:
        """Update after the last backward pass of a step. False: the gradient is not finite, so nothing was
        updated.

        Args:
            lr: learning rate.
            projectors_rest: leave the projectors of soft tokens as they are; the moments of their gradients
                go on.
        """

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        """Full Adam moments by parameter name, and `step`; a collective, the same on every worker."""

    def load_optimizer_state(self, state: dict[str, torch.Tensor]) -> None: ...

    def gathered(self) -> AbstractContextManager[None]:
        """While it lasts, every worker holds all weights and may run the bare model on its own."""

    def gathered_adapter(self, *, modify: bool = False) -> AbstractContextManager[None]:
        """While it lasts, every worker holds the adapter's weights and those of a frozen copy; with
        `modify`, all write the same values."""

    def adapter_changed(self) -> None:
        """The adapter's weights were replaced: bring the optimiser's own copies in line."""


def make_engine(module: nn.Module, config: TrainConfig, *, rounds: int, device: torch.device) -> Engine:
    """The engine that the config asks for.

    Args:
        module: a `TrainStep` on its device, adapter weights in float32.
        config: engine, ZeRO stage, clipping and weight decay.
        rounds: micro-batches of a step on each worker.
        device: this worker's device.

    Raises:
        ConfigError: DeepSpeed is asked for and not installed.
    """
    installed = importlib.util.find_spec("deepspeed") is not None
    if config.engine == "deepspeed" and not installed:
        raise ConfigError("train.engine is 'deepspeed', which is not installed; install it, or take 'ddp'")
    if config.engine == "ddp" or not installed:
        return DDPEngine(module, config, device=device)
    return DeepSpeedEngine(module, config, rounds=rounds, device=device)


class DDPEngine:
    """torch's DistributedDataParallel around AdamW."""

    def __init__(self, module: nn.Module, config: TrainConfig, *, device: torch.device) -> None:
        self.module = module
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.max_grad_norm = config.max_grad_norm
        ids = [device.index] if device.type == "cuda" else None
        self.ddp: nn.Module = module
        if self.world > 1:
            self.ddp = nn.parallel.DistributedDataParallel(module, device_ids=ids)
        self.parameters = trainable(module)
        self.optimizer = adamw(module, config)

    def __call__(self, *args: Any) -> Any:
        return self.ddp(*args)

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        # DDP decides in the forward pass whether a backward pass reduces; reducing sums of sums at every
        # micro-batch is correct, so nothing is skipped here. DDP averages, the loop wants sums.
        (loss * self.world).backward()

    def step(self, lr: float, *, projectors_rest: bool = False) -> bool:
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.max_grad_norm or math.inf)
        finite = bool(norm.isfinite())
        set_rates(self.optimizer, lr, projectors_rest=projectors_rest)
        if finite:
            self.optimizer.step()
        self.optimizer.zero_grad()
        return finite

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        return adam_state(self.optimizer, self.parameters)

    def load_optimizer_state(self, state: dict[str, torch.Tensor]) -> None:
        load_adam_state(self.optimizer, self.parameters, state)

    def gathered(self) -> AbstractContextManager[None]:
        return nullcontext()

    def gathered_adapter(self, *, modify: bool = False) -> AbstractContextManager[None]:
        return nullcontext()

    def adapter_changed(self) -> None:
        """The parameters are all there is."""
