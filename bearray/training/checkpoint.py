"""Checkpoints: adapter, optimiser and counters as safetensors and JSON, independent of workers and ZeRO
stage."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from bearray.backbones.lora import load_adapter, save_adapter
from bearray.backbones.reference import reference_parameters
from bearray.errors import ModelError, ResumeError
from bearray.negatives import KeptAnswers
from bearray.objectives import Objective
from bearray.runs import ADAPTER
from bearray.training.engine import Engine

OPTIMIZER = "optimizer.safetensors"
REFERENCE = "reference.safetensors"
ANSWERS = "answers.safetensors"
"""Answers that were made once and are not used up; only where there are such."""
STATE = "state.json"


def save_checkpoint(
    folder: Path,
    model: PeftModel,
    engine: Engine,
    objective: Objective,
    *,
    epoch: int,
    rank: int,
    answers: KeptAnswers | None = None,
) -> None:
    """Write the state after `epoch` finished epochs. Every worker must call it; rank 0 writes.

    state.json is written last: a folder with it is complete.
    """
    optimizer = engine.optimizer_state()
    with engine.gathered_adapter():
        if rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            save_adapter(model, folder / ADAPTER)
            reference = reference_parameters(model)
            if reference:
                weights = {n: p.detach().cpu().contiguous() for n, p in reference.items()}
                save_file(weights, folder / REFERENCE)
    if rank == 0:
        save_file({name: value.contiguous() for name, value in optimizer.items()}, folder / OPTIMIZER)
        if answers is not None:
            save_file(answers.tensors(), folder / ANSWERS)
        state = {"epoch": epoch, "objective": objective.state_dict()}
        (folder / STATE).write_text(json.dumps(state, indent=2) + "\n")


def restore_checkpoint(folder: Path, model: PeftModel, engine: Engine, objective: Objective) -> int:
    """Load what `save_checkpoint` wrote, into any number of workers and any ZeRO stage.

    Returns:
        Finished epochs.

    Raises:
        ResumeError: the folder is incomplete or damaged.
    """
    try:
        state = json.loads((folder / STATE).read_text())
        optimizer = load_file(folder / OPTIMIZER)
        reference = load_file(folder / REFERENCE) if reference_parameters(model) else {}
    except Exception as error:
        raise ResumeError(f"checkpoint {folder} cannot be read: {error}") from error
    with engine.gathered_adapter(modify=True):
        try:
            load_adapter(model, folder / ADAPTER, trainable=True)
        except ModelError as error:
            raise ResumeError(f"checkpoint {folder} does not fit this run: {error}") from error
        _restore_reference(folder, model, reference)
    engine.adapter_changed()
    engine.load_optimizer_state(optimizer)
    objective.load_state_dict(state["objective"])
    return int(state["epoch"])


def load_answers(folder: Path) -> KeptAnswers | None:
    """The answers of a checkpoint, if it has any.

    Raises:
        ResumeError: their file is damaged.
    """
    if not (folder / ANSWERS).exists():
        return None
    try:
        return KeptAnswers.from_tensors(load_file(folder / ANSWERS))
    except Exception as error:
        raise ResumeError(f"checkpoint {folder} cannot be read: {ANSWERS}: {error!r}") from error


@torch.no_grad()
def _restore_reference(folder: Path, model: PeftModel, saved: dict[str, torch.Tensor]) -> None:
    """The frozen copy of the adapter, which is the reference of preference losses."""
    weights = reference_parameters(model)
    if {n: tuple(p.shape) for n, p in weights.items()} != {n: tuple(x.shape) for n, x in saved.items()}:
        raise ResumeError(f"checkpoint {folder} does not fit this run: {REFERENCE} has other tensors")
    for name, parameter in weights.items():
        parameter.copy_(saved[name])
