"""What updates the adapter: DeepSpeed ZeRO 0 to 3, or plain DDP where DeepSpeed is not installed.

Both take the same calls, so the loop does not know which one runs. The optimiser's state travels as full,
unpartitioned float32 tensors under parameter names: a checkpoint written by four ZeRO-3 workers restores on
one DDP worker, and it is plain safetensors, never a pickle.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn

from bearray.backbones.reference import reference_parameters
from bearray.backbones.soft import soft_embedding
from bearray.config import TrainConfig
from bearray.errors import ConfigError
from bearray.training.build_lock import remove_stale_locks

PROJECTORS = "projectors"
ADAM_MOMENTS = ("exp_avg", "exp_avg_sq")


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


def set_rates(optimizer: Any, lr: float, *, projectors_rest: bool) -> None:
    """Set the learning rate of all groups, 0 of projectors that rest."""
    for group in optimizer.param_groups:
        group["lr"] = 0.0 if projectors_rest and group["name"] == PROJECTORS else lr


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
        self.optimizer = torch.optim.AdamW(
            parameter_groups(module), lr=config.lr, weight_decay=config.weight_decay
        )

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


class DeepSpeedEngine:
    """DeepSpeed ZeRO over the adapter's parameters.

    Adapters are kept in float32 (as PEFT does by default) over base weights of any type, so DeepSpeed runs
    without its own mixed precision: the parameters are the master weights.
    """

    def __init__(self, module: nn.Module, config: TrainConfig, *, rounds: int, device: torch.device) -> None:
        if device.type == "cpu":
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        import deepspeed

        remove_stale_locks()
        self.module = module
        self.rounds = rounds
        self.stage = config.zero_stage
        self.parameters = trainable(module)
        self.updates = 0
        """Updates since this process began or restored; before the first one there are no moments to read."""
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        settings = {
            "train_micro_batch_size_per_gpu": config.micro_batch_size,
            "gradient_accumulation_steps": rounds,
            "gradient_clipping": config.max_grad_norm,
            "zero_optimization": {
                "stage": config.zero_stage,
                # Gradients are gathered in a buffer of this many numbers. By default it has 500 million,
                # which is 2 GB and a hundred times an adapter.
                "reduce_bucket_size": max(1, sum(p.numel() for p in self.parameters.values())),
            },
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 2**31,
        }
        optimizer = torch.optim.AdamW(
            parameter_groups(module), lr=config.lr, weight_decay=config.weight_decay
        )
        self.engine: Any = deepspeed.initialize(
            model=module,
            optimizer=optimizer,
            model_parameters=list(self.parameters.values()),
            config=settings,
        )[0]

    def __call__(self, *args: Any) -> Any:
        return self.engine(*args)

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        self.engine.backward(loss * (self.world * self.rounds))  # it averages over both; the loop wants sums
        if not last:
            self.engine.step()  # only counts the micro-batch

    def step(self, lr: float, *, projectors_rest: bool = False) -> bool:
        set_rates(self.engine.optimizer, lr, projectors_rest=projectors_rest)
        skipped = self.engine.skipped_steps
        if self.stage == 0 and not self._gradient_is_finite():
            return False  # without ZeRO, DeepSpeed would take this step
        self.engine.step()
        updated = bool(self.engine.skipped_steps == skipped)
        self.updates += updated
        return updated

    def _gradient_is_finite(self) -> bool:
        """Of unpartitioned parameters, whose gradients DeepSpeed has reduced over the workers by now."""
        slopes = [p.grad for p in self.parameters.values() if p.grad is not None]
        return bool(nn.utils.get_total_norm(slopes).isfinite())

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        if self.stage == 0:
            return adam_state(self.engine.optimizer, self.parameters)
        if self.updates == 0:
            return fresh_adam_state(self.parameters)
        from deepspeed.utils import safe_get_full_optimizer_state

        self._find_moments()
        state = {
            f"{moment}.{name}": safe_get_full_optimizer_state(parameter, moment).detach().cpu().clone()
            for moment in ADAM_MOMENTS
            for name, parameter in self.parameters.items()
        }
        inner = self.engine.optimizer.optimizer.state
        state["step"] = next(iter(inner.values()))["step"].detach().cpu().clone().float().reshape(())
        return state

    def load_optimizer_state(self, state: dict[str, torch.Tensor]) -> None:
        if self.stage == 0:
            load_adam_state(self.engine.optimizer, self.parameters, state)
            return
        self.updates += 1  # moments are there from now on
        zero = self.engine.optimizer
        flats = zero.fp32_partitioned_groups_flat if self.stage == 3 else zero.single_partition_of_fp32_groups
        for flat in flats:  # the inner optimiser's own parameters; it has no state before its first step
            slot = zero.optimizer.state[flat]
            slot["step"] = state["step"].clone().float()
            for moment in ADAM_MOMENTS:
                slot.setdefault(moment, torch.zeros_like(flat))
        self._find_moments()
        for name, parameter in self.parameters.items():
            for moment in ADAM_MOMENTS:
                self._set_part(parameter, state[f"{moment}.{name}"], moment)

    def _find_moments(self) -> None:
        """Where in the flat moments each parameter's are; DeepSpeed looks once, after the first group's first
        update, when the other groups have none yet."""
        if self.stage < 3:
            zero = self.engine.optimizer
            zero._hp_optimizer_states_linked = False
            zero._lazy_init_hp_params_optimizer_state()

    def _set_part(self, parameter: nn.Parameter, full: torch.Tensor, moment: str | None = None) -> None:
        """Store this worker's part of a parameter's master weights, or of one of its moments."""
        from deepspeed import utils

        value = full.detach().to(parameter.device, torch.float32)
        if self.stage < 3:
            if moment is None:
                utils.safe_set_full_fp32_param(parameter, value)
            else:
                utils.safe_set_full_optimizer_state(parameter, value, moment)
            return
        # Parts are of equal size, the last ones padded; DeepSpeed's own cut of full values forgets that.
        size = -(-value.numel() // self.world)
        padded = nn.functional.pad(value.flatten(), (0, size * self.world - value.numel()))
        part = padded[dist.get_rank() * size :][:size]
        if moment is None:
            utils.safe_set_local_fp32_param(parameter, part)
        else:
            utils.safe_set_local_optimizer_state(parameter, part, moment)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        if self.stage < 3:
            yield
            return
        import deepspeed

        offload = self.engine.optimizer.parameter_offload
        parameters = list(self.module.parameters())
        with deepspeed.zero.GatheredParameters(parameters):
            # With the weights here, ZeRO's hooks would only fetch and release them again, out of step
            # between workers.
            offload._remove_module_hooks()
            try:
                yield
            finally:
                offload.setup_zero_stage3_hooks()

    def gathered_adapter(self, *, modify: bool = False) -> AbstractContextManager[None]:
        if self.stage < 3:
            return nullcontext()
        import deepspeed

        weights = [*self.parameters.values(), *reference_parameters(self.module).values()]
        gathered: AbstractContextManager[None] = deepspeed.zero.GatheredParameters(
            weights, modifier_rank=0 if modify else None
        )
        return gathered

    def adapter_changed(self) -> None:
        if self.stage == 0:
            return
        with self.gathered_adapter():
            values = [parameter.detach().clone() for parameter in self.parameters.values()]
        for parameter, value in zip(self.parameters.values(), values, strict=True):
            self._set_part(parameter, value)


def adam_state(
    optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter]
) -> dict[str, torch.Tensor]:
    """Moments of an unpartitioned optimiser by parameter name."""
    if not optimizer.state:
        return fresh_adam_state(parameters)
    state = {
        f"{moment}.{name}": optimizer.state[p][moment].detach().cpu().clone()
        for moment in ADAM_MOMENTS
        for name, p in parameters.items()
    }
    state["step"] = optimizer.state[next(iter(parameters.values()))]["step"].detach().cpu().clone().float()
    return state


def fresh_adam_state(parameters: dict[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    """Of an optimiser that has not updated anything."""
    state = {
        f"{moment}.{name}": torch.zeros(getattr(p, "ds_shape", p.shape))  # partitioned ones look empty
        for moment in ADAM_MOMENTS
        for name, p in parameters.items()
    }
    return state | {"step": torch.tensor(0.0)}


def load_adam_state(
    optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], state: dict[str, torch.Tensor]
) -> None:
    for name, p in parameters.items():
        slot = {moment: state[f"{moment}.{name}"].to(p.device, p.dtype).clone() for moment in ADAM_MOMENTS}
        optimizer.state[p] = {"step": state["step"].clone().float(), **slot}
