"""The two parts of a benchmark, training and decoding, as one process measures them: with Ray or without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from bearray.config import DecodingConfig, ObjectiveConfig, RunConfig, from_dict, to_dict
from bearray.efficiency.core import Clock, Contenders, measure
from bearray.efficiency.decoders import DecodingContenders
from bearray.efficiency.energy import EnergyMeter
from bearray.efficiency.machine import machine_facts
from bearray.efficiency.results import PartFolder, Record
from bearray.efficiency.steps import TrainingContenders
from bearray.efficiency.variants import DROPOUT, Decoder, TimedObjective
from bearray.runs import Storage
from bearray.task import load_task

TRAINING, DECODING = "training", "decoding"


def plan(
    run: RunConfig,
    folder: Storage,
    contenders: Mapping[str, TimedObjective] | Mapping[str, Decoder],
    *,
    rounds: int,
    steps: int,
    users: int,
    warmup: int,
    seed: int,
    energy: bool,
) -> Record:
    """What travels to whoever measures, as plain values.

    Args:
        run: as `EfficiencyConfig.measured_run` returns. folder: STORAGE/efficiency.
        contenders: objectives or decoders by label.
        rounds, steps, users, warmup, seed, energy: as in `EfficiencyConfig`.
    """
    return {
        "run": to_dict(run),
        "folder": folder.root,
        "contenders": {label: _plain(c) for label, c in contenders.items()},
        "rounds": rounds,
        "steps": steps,
        "users": users,
        "warmup": warmup,
        "seed": seed,
        "energy": energy,
    }


def _plain(contender: TimedObjective | Decoder) -> Record:
    """As plan and file have it; an objective's own settings stand side by side with its LoRA dropout."""
    if isinstance(contender, TimedObjective):
        return {**asdict(contender.config), DROPOUT: contender.lora_dropout}
    return asdict(contender)


def _objective(plain: Record) -> TimedObjective:
    settings = dict(plain)
    dropout = settings.pop(DROPOUT)
    return TimedObjective(from_dict(ObjectiveConfig, settings), dropout)


def measure_training(
    plan: Record, *, rank: int, world: int, device: torch.device, local_rank: int = 0
) -> None:
    """All missing rounds of training steps; a collective over the workers, rank 0 writes.

    Args:
        plan: as `plan` returns.
        rank, world, device: this worker.
        local_rank: its number on its machine; the first of each machine meters the energy of it.
    """
    run = from_dict(RunConfig, plan["run"])
    objectives = {label: _objective(c) for label, c in plan["contenders"].items()}
    part = PartFolder(Storage(plan["folder"]), TRAINING)
    part.begin(machine_facts(device))
    contenders = TrainingContenders(
        run, objectives, load_task(run), steps=plan["steps"], rank=rank, world=world, device=device
    )
    about = {
        "steps_per_epoch": {label: contenders.steps_per_epoch(label) for label in objectives},
        "kinds": {
            label: {kind.label: share for kind, share in kinds}
            for label, kinds in contenders.kinds.items()
            if len(kinds) > 1
        },
        "steps": plan["steps"],
        "batch_size": run.train.batch_size,
        "workers": world,
    }
    energy = EnergyMeter(enabled=plan["energy"], here=local_rank == 0)
    _measure(contenders, plan, part, about, device, energy, warmup=plan["warmup"], writes=rank == 0)


def measure_decoding(plan: Record, *, device: torch.device, only: list[int] | None = None) -> None:
    """All missing rounds of decoding, or of them only some."""
    DecodingPart(plan, device).measure(only)


class DecodingPart:
    """The decoders, loaded once; `measure` may be called for one round after the other.

    Args:
        plan: as `plan` returns.
        device: where the model goes.
    """

    def __init__(self, plan: Record, device: torch.device) -> None:
        self.plan, self.device = plan, device
        self.run = from_dict(RunConfig, plan["run"])
        decoders = {
            label: Decoder(from_dict(DecodingConfig, c["config"]), bool(c["peer"]))
            for label, c in plan["contenders"].items()
        }
        self.part = PartFolder(Storage(plan["folder"]), DECODING)
        self.part.begin(machine_facts(device))
        self.contenders = DecodingContenders(
            self.run, decoders, load_task(self.run), users=plan["users"], device=device
        )
        self.warm = False

    def measure(self, only: list[int] | None = None) -> None:
        about = {"passes_size": self.contenders.size(0), "titles": len(self.contenders.task.catalog)}
        warmup = 0 if self.warm else self.plan["warmup"]
        energy = EnergyMeter(enabled=self.plan["energy"])
        _measure(
            self.contenders,
            self.plan,
            self.part,
            about,
            self.device,
            energy,
            warmup=warmup,
            writes=True,
            only=only,
        )
        self.warm = True


def _measure(
    contenders: Contenders,
    plan: Record,
    part: PartFolder,
    about: Record,
    device: torch.device,
    energy: EnergyMeter,
    *,
    warmup: int,
    writes: bool,
    only: list[int] | None = None,
) -> None:
    missing = part.missing(plan["rounds"])
    counted = part.counted
    clock = Clock(device)
    clock.wait()  # all workers have looked before the first one writes
    machines = round(clock.reduce([float(energy.meters)], "sum")[0])

    def keep_counts(counts: Mapping[str, Any]) -> None:
        if writes:
            part.add_counts(
                {
                    **about,
                    "contenders": plan["contenders"],
                    "machine": machine_facts(device),
                    "energy_sources": energy.sources(),
                    "energy_machines": machines,
                    "passes": dict(counts),
                }
            )

    def keep_round(record: Record) -> None:
        if writes:
            part.add(record)

    measure(
        contenders,
        rounds=missing if only is None else [n for n in only if n in missing],
        warmup=warmup,
        seed=plan["seed"],
        clock=clock,
        energy=energy,
        counted=counted,
        on_counts=keep_counts,
        on_round=keep_round,
    )
