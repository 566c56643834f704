"""Which ZeRO stage, micro-batch and checkpointing fit on a device, and which of them is fastest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bearray.config import RunConfig
from bearray.planning.cards import Device
from bearray.planning.costs import step_seconds
from bearray.planning.memory import Memory, room, trained_weights, training_memory
from bearray.planning.shapes import Shape
from bearray.planning.work import Work

STAGES = (2, 1, 0, 3)
"""ZeRO stages in the order in which they are preferred where they are equally fast: 2 is the default."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One way to train, and what it takes."""

    workers: int
    """Devices of a run."""
    zero_stage: int
    micro_batch: int
    checkpointing: bool
    memory: Memory
    """Of each device, with the most demanding of the objectives."""
    starting: int
    """Bytes of a device while it starts: each worker loads all weights before stage 3 shares them out."""
    room: int
    """Bytes of a device that tensors may fill."""
    step_seconds: float
    """Of SFT, computed; to compare options with."""

    @property
    def needed(self) -> int:
        return max(self.memory.total, self.starting)

    @property
    def fits(self) -> bool:
        return self.needed <= self.room


def apply(config: RunConfig, option: Option) -> RunConfig:
    """The run with an option's settings."""
    train = replace(
        config.train,
        num_workers=option.workers,
        zero_stage=option.zero_stage,
        micro_batch_size=option.micro_batch,
        gradient_checkpointing=option.checkpointing,
    )
    return replace(config, train=train)


def micro_batches(batch_size: int, workers: int) -> list[int]:
    """Powers of two up to a worker's share of a batch, and that share, the largest first."""
    share = -(-batch_size // workers)
    powers = {2**n for n in range(share.bit_length()) if 2**n <= share}
    return sorted(powers | {share}, reverse=True)


def options(
    shape: Shape,
    runs: Sequence[RunConfig],
    work: Work,
    device: Device,
    *,
    workers: int,
    stages: Sequence[int] = STAGES,
    micro_batch: int | None = None,
    checkpointing: bool | None = None,
) -> list[Option]:
    """All ways to train these runs, the fastest of those that fit first, then those that do not fit, by what
    they need.

    Args:
        shape: of the base model. runs: one for each objective. work: lengths. device: of each worker.
        workers: devices of a run.
        stages, micro_batch, checkpointing: what may not be chosen freely.
    """
    found = []
    batch = runs[0].train.batch_size
    sizes = micro_batches(batch, workers)
    if micro_batch is not None:  # a worker has no more windows than its share of a batch
        sizes = [min(micro_batch, sizes[0])]
    for zero in stages if workers > 1 else [s for s in stages if s != 3] or stages:
        for recompute in (False, True) if checkpointing is None else (checkpointing,):
            for size in sizes:
                found.append(_option(shape, runs, work, device, workers, zero, size, recompute))
    # Of options that are equally fast, the preferred stage.
    return sorted(found, key=lambda o: (not o.fits, o.step_seconds if o.fits else o.needed))


def _option(
    shape: Shape,
    runs: Sequence[RunConfig],
    work: Work,
    device: Device,
    workers: int,
    zero: int,
    size: int,
    recompute: bool,
) -> Option:
    memories = []
    for run in runs:
        train = replace(
            run.train,
            num_workers=workers,
            zero_stage=zero,
            micro_batch_size=size,
            gradient_checkpointing=recompute,
        )
        memories.append(training_memory(shape, replace(run, train=train), work, device))
    memory = max(memories, key=lambda m: m.total)
    whole = training_memory(
        shape, replace(runs[0], train=replace(runs[0].train, num_workers=1, zero_stage=2)), work, device
    )
    seconds = step_seconds(
        shape,
        work,
        device,
        windows=runs[0].train.batch_size,
        workers=workers,
        micro_batch=size,
        adapter=trained_weights(shape, runs[0].model),
        zero_stage=zero,
        checkpointing=recompute,
    )
    return Option(
        workers=workers,
        zero_stage=zero,
        micro_batch=size,
        checkpointing=recompute,
        memory=memory,
        starting=whole.weights + whole.adapter,
        room=room(device),
        step_seconds=seconds,
    )


def advice(shape: Shape, option: Option, runs: Sequence[RunConfig], work: Work, device: Device) -> list[str]:
    """What would make an option fit that does not, the least change first; none where it fits."""
    if option.fits:
        return []
    found = []
    same = {
        "workers": option.workers,
        "stages": [option.zero_stage],
        "micro_batch": option.micro_batch,
        "checkpointing": option.checkpointing,
    }

    def fits(**changes: object) -> bool:
        tried: dict[str, object] = {**same, **changes}
        return any(o.fits for o in options(shape, runs, work, device, **tried))  # type: ignore[arg-type]

    if not option.checkpointing and fits(checkpointing=True):
        found.append("--train.gradient-checkpointing (half as much time again)")
    smaller = [m for m in micro_batches(option.micro_batch, 1) if m < option.micro_batch]
    size = next((m for m in smaller if fits(micro_batch=m)), None)
    if size is not None:
        found.append(f"--train.micro-batch-size {size}")
    if not found and option.checkpointing is False:
        size = next((m for m in smaller if fits(micro_batch=m, checkpointing=True)), None)
        if size is not None:
            found.append(f"--train.micro-batch-size {size} with --train.gradient-checkpointing")
    if option.zero_stage != 3 and option.workers > 1 and fits(stages=[3]):
        found.append("--train.zero-stage 3")
    needed = min(o.needed for o in options(shape, runs, work, device, workers=option.workers))
    if not found:
        found.append(
            f"a GPU of at least {_card_gb(needed):.0f} GB: nothing smaller holds even the least of it"
        )
    return found


def _card_gb(needed: int) -> float:
    """Memory that a card must have for tensors to fill so many bytes."""
    from bearray.planning.assumed import ROOM

    return needed / ROOM.usable / 1e9 + ROOM.context_gb


def card_gb(option: Option) -> float:
    """GB that a card must have for an option."""
    return _card_gb(option.needed)
