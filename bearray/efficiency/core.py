"""The measuring core: interleaved rounds of turns, and what one turn needs counted.

A machine drifts: other work starts, a processor heats up. So contenders take turns in short rounds, in an
order drawn anew for each, and are compared within rounds; a drift then hits all of them alike. What is timed
is wall time from an idle device to an idle device, of the slowest worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from bearray.efficiency.counters import counting
from bearray.efficiency.energy import EnergyMeter
from bearray.efficiency.machine import load_average
from bearray.efficiency.memory import peak_memory
from bearray.efficiency.results import Record


class Contenders(Protocol):
    """Pieces of work that are compared, by label."""

    labels: Sequence[str]
    pad_token_id: int

    def body(self, label: str) -> nn.Module:
        """The model's body that its passes go through."""

    def begin(self, label: str, number: int) -> Sequence[Callable[[], None]]:
        """Untimed: bring everything to where a turn starts, and return the pieces of work of its turn in
        round `number`, each of which is timed. Every label gets the same data in the same round."""

    def weights(self, label: str) -> Sequence[float]:
        """Of each piece of a turn; they add up to 1."""

    def size(self, number: int) -> int:
        """Units of work (tokens, users) in a round, over all workers; the same for every label."""


class Clock:
    """Wall and CPU seconds of work on a device, shared by the workers.

    Args:
        device: what is waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.together = dist.is_initialized() and dist.get_world_size() > 1

    def wait(self) -> None:
        """Until this worker's device and all other workers are here."""
        self._synchronize()
        if self.together:
            dist.barrier()

    def time(self, work: Callable[[], None]) -> tuple[float, float]:
        """(wall, CPU) seconds of this worker; the workers start together."""
        self.wait()
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        self._synchronize()
        return time.perf_counter() - wall, time.process_time() - cpu

    def reduce(self, values: Sequence[float], how: str) -> list[float]:
        """The "max" or "sum" over workers of each value."""
        if not self.together:
            return [float(v) for v in values]
        tensor = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX if how == "max" else dist.ReduceOp.SUM)
        return [float(v) for v in tensor.tolist()]

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def round_order(labels: Sequence[str], seed: int, number: int) -> list[str]:
    """The order of turns in a round; it depends on nothing else, so an interrupted run takes it up again."""
    places = np.random.default_rng([seed, number]).permutation(len(labels))
    return [labels[i] for i in places]


def time_round(
    contenders: Contenders, number: int, *, seed: int, clock: Clock, energy: EnergyMeter
) -> Record:
    """One turn of each contender.

    Returns:
        {"round", "order", "size": units of work, "load": load averages before and after, "turns": by label
        {"seconds": wall time of each piece of work, "cpu_seconds", "joules": of the turn on all machines, or
        None}}.
    """
    order = round_order(contenders.labels, seed, number)
    before = load_average()
    turns: dict[str, Record] = {}
    for label in order:
        pieces = contenders.begin(label, number)
        clock.wait()
        energy.begin()
        times = [clock.time(work) for work in pieces]
        joules = energy.end()
        turns[label] = {
            "seconds": clock.reduce([wall for wall, _ in times], "max"),
            "cpu_seconds": clock.reduce([cpu for _, cpu in times], "sum"),
            "joules": clock.reduce([joules or 0.0], "sum")[0] if energy.enabled else None,
        }
    return {
        "round": number,
        "order": order,
        "size": contenders.size(number),
        "load": [before, load_average()],
        "turns": turns,
    }


def warm_up(contenders: Contenders, pieces: int) -> None:
    """The first `pieces` pieces of work of each contender, untimed; a turn is repeated where it has fewer."""
    for label in contenders.labels:
        left = pieces
        while left > 0:
            for work in contenders.begin(label, 0)[:left]:
                work()
                left -= 1


def count_passes(contenders: Contenders, clock: Clock) -> dict[str, Record]:
    """One turn of each contender, round 0's, with counters on instead of a clock.

    Returns:
        By label, per piece of work: {"weights": as `Contenders.weights`, "forward", "backward": passes of a
        worker, "tokens", "padding": tokens fed on all workers}; and of the turn {"peak_bytes": memory above
        what was in use before, of the worker
        that needed most, "peak_total_bytes"}, None where the machine does not tell.
    """
    found = {}
    for label in contenders.labels:
        pieces = contenders.begin(label, 0)
        counts = []
        with peak_memory(clock.device) as peak:
            for work in pieces:
                with counting(contenders.body(label), contenders.pad_token_id) as passes:
                    work()
                counts.append(passes)
        found[label] = {
            "weights": list(contenders.weights(label)),
            "forward": _whole(clock.reduce([p.forward for p in counts], "max")),
            "backward": _whole(clock.reduce([p.backward for p in counts], "max")),
            "tokens": _whole(clock.reduce([p.tokens for p in counts], "sum")),
            "padding": _whole(clock.reduce([p.padding for p in counts], "sum")),
            "peak_bytes": _bytes(clock, peak.above),
            "peak_total_bytes": _bytes(clock, peak.total),
        }
    return found


def measure(
    contenders: Contenders,
    *,
    rounds: Iterable[int],
    warmup: int,
    seed: int,
    clock: Clock,
    energy: EnergyMeter,
    counted: bool,
    on_counts: Callable[[Mapping[str, Record]], None],
    on_round: Callable[[Record], None],
) -> None:
    """Warm up, count where that was not done yet, and time the given rounds, each handed on when it ends."""
    warm_up(contenders, warmup)
    if not counted:
        on_counts(count_passes(contenders, clock))
    for number in rounds:
        on_round(time_round(contenders, number, seed=seed, clock=clock, energy=energy))


def _whole(values: Sequence[float]) -> list[int]:
    return [round(v) for v in values]


def _bytes(clock: Clock, value: int | None) -> int | None:
    most = clock.reduce([-1.0 if value is None else float(value)], "max")[0]
    return None if most < 0 else round(most)
