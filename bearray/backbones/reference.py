"""The frozen model that preference losses compare with, without a second model in memory.

Two kinds: the base model, which is the model with its adapter off, or the base with a frozen copy of the
adapter, some megabytes, kept beside the trained one under the name "reference". Projectors of soft tokens,
without which there is no model, have a frozen copy in both.

PEFT's own switches (`disable_adapter`, `set_adapter`) also turn `requires_grad` of the weights off and on
again. In the middle of a training step that is not theirs to do: DDP and ZeRO have hooks on those weights. So
the layers' switches are set here directly, and read back through PEFT's public properties.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from bearray.backbones.soft import REFERENCE, TRAINED, soft_embedding
from bearray.errors import ModelError

Reference = Literal["base", "start"]


def add_reference(model: nn.Module, kind: Reference = "start") -> None:
    """Put a frozen copy of what is trained beside it, as far as the kind of reference needs one and there is
    none yet; the model computes as before."""
    lm: Any = model
    if kind == "start" and hasattr(model, "get_base_model") and REFERENCE not in lm.peft_config:
        trainable = {name for name, p in model.named_parameters() if p.requires_grad}
        with torch.random.fork_rng(devices=[]):  # its random start is overwritten at once
            lm.add_adapter(REFERENCE, copy.deepcopy(lm.peft_config[TRAINED]))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trainable)
    soft = soft_embedding(model)
    if soft is not None:
        soft.add_reference()
    refresh_reference(model)


def reference_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The frozen copy's weights by name; none if there is no copy."""
    return {name: p for name, p in model.named_parameters() if f".{REFERENCE}." in name}


@torch.no_grad()
def refresh_reference(model: nn.Module) -> None:
    """Make the adapter as it stands the reference; all weights must be whole on this worker."""
    weights = dict(model.named_parameters())
    for name, frozen in reference_parameters(model).items():
        frozen.copy_(weights[name.replace(f".{REFERENCE}.", f".{TRAINED}.")])


@contextmanager
def as_reference(model: nn.Module, kind: Reference) -> Iterator[None]:
    """While it lasts, the model computes as its reference: in evaluation mode and without gradients.

    Args:
        model: with an adapter and, for kind "start", with a copy by `add_reference`.
        kind: "base" (no adapter) or "start" (the copy).

    Raises:
        ModelError: the model has no adapter to switch, or no copy.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers: list[Any] = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
    soft = soft_embedding(model)
    projects = soft is not None and bool(soft.kinds)
    if not layers and not projects:
        raise ModelError("a reference is the model with its adapter switched; this model has no adapter")
    lacks_copy = kind == "start" and not reference_parameters(model)
    if lacks_copy or (soft is not None and projects and not soft.has_reference):
        raise ModelError("the model has no frozen copy of what is trained; make one with add_reference")
    training = [m for m in model.modules() if m.training]
    before = [(layer._disable_adapters, layer._active_adapter) for layer in layers]
    try:
        model.eval()
        for layer in layers:
            layer._disable_adapters = kind == "base"
            layer._active_adapter = [REFERENCE] if kind == "start" else layer._active_adapter
        if layers and (
            layers[0].disable_adapters != (kind == "base")
            or (kind == "start" and layers[0].active_adapters != [REFERENCE])
        ):
            raise ModelError("this version of PEFT switches adapters in a way that bearray does not know")
        if soft is not None:
            soft.active = REFERENCE
        with torch.no_grad():
            yield
    finally:
        if soft is not None:
            soft.active = TRAINED
        for layer, (disabled, active) in zip(layers, before, strict=True):
            layer._disable_adapters, layer._active_adapter = disabled, active
        for module in training:
            module.training = True
