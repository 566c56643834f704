"""FLOPs from models' shapes, seconds from rates: what has not been measured is computed here.

The tables of docs/scale.md are made of the same functions (benchmarks/scale.py).
"""

from __future__ import annotations

from math import ceil

from bearray.planning.assumed import ASSUMED
from bearray.planning.cards import Device
from bearray.planning.shapes import Shape
from bearray.planning.work import Work


def training_flops(shape: Shape, work: Work, micro_batch: int, *, checkpointing: bool = False) -> float:
    """A window, forward and backward.

    Frozen weights need the gradient of their input and none of their own, so the backward pass costs what the
    forward pass does, but for attention: four products for two. Gradient checkpointing adds a forward pass of
    the body.
    """
    tokens, context = work.window_tokens(micro_batch), work.prompt_tokens / 2
    body = shape.forward(tokens, context)
    once = body + shape.head(work.answer_tokens)
    return 2 * once + shape.attention(tokens, context) + (body if checkpointing else 0.0)


def decoding_flops(shape: Shape, work: Work, normalize: str) -> float:
    """A user: the prompt's FLOPs times the measured ratio."""
    return shape.forward(work.prompt_tokens, work.prompt_tokens / 2) * work.decoding_over_prefill[normalize]


def step_seconds(
    shape: Shape,
    work: Work,
    device: Device,
    *,
    windows: int,
    workers: int,
    micro_batch: int,
    adapter: int,
    zero_stage: int = 2,
    checkpointing: bool = False,
    rate: float | None = None,
) -> float:
    """An optimiser step of `windows`, which the workers share out evenly.

    Args:
        adapter: weights that are trained, whose gradients are summed over the workers.
        rate: FLOP/s of a worker in training as measured, all that is fixed in a step included; None takes the
            assumed share of the device's peak and the assumed fixed time.
    """
    own = ceil(windows / workers)
    fixed = ASSUMED.step_seconds if rate is None else 0.0
    rate = rate or device.peak * ASSUMED.training_utilisation
    flops = own * training_flops(shape, work, min(micro_batch, own), checkpointing=checkpointing)
    network = 0.0
    if workers > 1:
        network = 2 * 4 * adapter / (ASSUMED.network_gb * 1e9)  # a ring moves each float32 gradient twice
        if zero_stage == 3:  # and each micro-batch gathers all weights, forward and backward
            passes = ceil(own / micro_batch) * (3 if checkpointing else 2)
            network += passes * shape.weights * device.element / (ASSUMED.network_gb * 1e9)
    return flops / rate + network + fixed


def evaluation_seconds(
    shape: Shape,
    work: Work,
    device: Device,
    *,
    actors: int,
    users: int,
    normalize: str,
    shard_size: int,
    start_seconds: float | None = None,
    users_per_second: float | None = None,
) -> float:
    """An evaluation: shards of users in turn on each actor, after the start.

    Args:
        start_seconds: None takes the assumed time to load a model; 0 where it is loaded.
        users_per_second: of an actor; None computes it from the assumed share of the device's peak.
    """
    shards = ceil(ceil(users / shard_size) / actors)
    if users_per_second is None:
        rate = device.peak * ASSUMED.decoding_utilisation
        users_per_second = rate / decoding_flops(shape, work, normalize)
    start = ASSUMED.start_seconds if start_seconds is None else start_seconds
    return start + shards * min(shard_size, users) / users_per_second
