"""Training loops on 1 or 2 processes without Ray: what runs in them, and what comes back.

Starting DeepSpeed costs seconds, so a group of processes runs many jobs, one after the other.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

from bearray.config import RunConfig, from_dict, override, to_dict
from bearray.task import load_task
from bearray.training.checkpoint import load_file, save_checkpoint
from bearray.training.diverged import DivergedError
from bearray.training.loop import Loop

POISONED = "layers.1.self_attn.v_proj.lora_B.default.weight"


@dataclass(frozen=True)
class Job:
    """One training run, or a part of one."""

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    """To the run that all jobs start from."""
    epochs: int = 1
    """Trained when this many epochs are finished, those before `restore` among them."""
    restore: Path | None = None
    save: bool = False
    """Write a checkpoint after each epoch."""
    validate: bool = False
    refresh: bool = False
    """Make the adapter as it stands the frozen reference after each epoch."""
    poisoned: int | None = None
    """Rank of a worker on which a weight of the adapter is NaN from the start; not with ZeRO."""
    blind: int | None = None
    """Rank of a worker that reads NaN for every token."""


@dataclass
class Outcome:
    """What a job came to, as rank 0 saw it."""

    rows: list[dict[str, Any]]
    adapter: dict[str, torch.Tensor]
    """What was trained: the adapter, and projectors of soft tokens."""
    moments: dict[str, torch.Tensor]
    valid: list[dict[str, float]]
    error: str | None
    reference: dict[str, torch.Tensor] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    """Of a run whose loss is no longer finite."""


def run_jobs(config: RunConfig, jobs: Sequence[Job], folder: Path, *, world: int) -> dict[str, Outcome]:
    """Run jobs in `world` new processes; checkpoints go to folder/NAME/EPOCH, and folder/NAME/diverged."""
    meeting = folder / f"meeting-{world}-{os.urandom(4).hex()}"
    torch.multiprocessing.spawn(
        _work, args=(world, str(meeting), to_dict(config), list(jobs), folder), nprocs=world
    )
    return {job.name: torch.load(folder / f"{job.name}.pt", weights_only=False) for job in jobs}


def _work(rank: int, world: int, meeting: str, config: dict[str, Any], jobs: list[Job], folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "RANK": str(rank), "WORLD_SIZE": str(world)}
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    run = from_dict(RunConfig, config)
    for job in jobs:
        outcome = run_job(override(run, job.changes), job, folder, rank=rank, world=world)
        if rank == 0:
            torch.save(outcome, folder / f"{job.name}.pt")
    dist.destroy_process_group()


def run_job(config: RunConfig, job: Job, folder: Path, *, rank: int = 0, world: int = 1) -> Outcome:
    """Train in this process, as one of `world` workers."""
    rows: list[dict[str, Any]] = []
    loop = Loop(
        config, load_task(config), rank=rank, world=world, device=torch.device("cpu"), log=rows.append
    )
    if job.restore is not None:
        loop.restore(job.restore)
    if job.poisoned == rank:
        weight = next(p for n, p in loop.model.named_parameters() if n.endswith(POISONED))
        weight.data[0, 0] = torch.nan
    if job.blind == rank:
        words = loop.model.get_base_model().get_input_embeddings()
        words.register_forward_hook(lambda _, ids, out: torch.full_like(out, torch.nan))
    valid: list[dict[str, float]] = []
    try:
        while loop.epoch < job.epochs:
            loop.run_epoch()
            if job.refresh:
                loop.refresh_reference()
            if job.validate:
                valid.append(loop.validate())
            if job.save:
                loop.save(folder / job.name / str(loop.epoch))
    except DivergedError as caught:
        loop.save(folder / job.name / "diverged")
        return Outcome(rows, {}, {}, valid, str(caught), report=caught.report)
    final = folder / job.name / "final"
    save_checkpoint(final, loop.model, loop.engine, loop.objective, epoch=loop.epoch, rank=rank)
    if rank != 0:
        return Outcome(rows, {}, {}, valid, None)
    parts = [final / "adapter" / "adapter_model.safetensors", final / "soft" / "projector.safetensors"]
    adapter = {name: value for part in parts if part.exists() for name, value in load_file(part).items()}
    frozen = final / "reference.safetensors"
    reference = load_file(frozen) if frozen.exists() else {}
    return Outcome(rows, adapter, load_file(final / "optimizer.safetensors"), valid, None, reference)
