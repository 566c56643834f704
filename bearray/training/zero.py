"""DeepSpeed ZeRO 0 to 3 as an engine of the training loop."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from bearray.backbones.reference import reference_parameters
from bearray.config import TrainConfig
from bearray.training.adam import (
    MOMENTS,
    adam_state,
    adamw,
    fresh_adam_state,
    load_adam_state,
    set_rates,
    trainable,
)
from bearray.training.build_lock import remove_stale_locks


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
        optimizer = adamw(module, config)
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
            for moment in MOMENTS
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
            for moment in MOMENTS:
                slot.setdefault(moment, torch.zeros_like(flat))
        self._find_moments()
        for name, parameter in self.parameters.items():
            for moment in MOMENTS:
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
