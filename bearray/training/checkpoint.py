"""Checkpoints: adapter, projectors of soft tokens with their vectors, optimiser and counters, as safetensors
and JSON, independent of workers and ZeRO stage.

state.json names all files with their sizes and checksums, so that a damaged one is never continued from.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn

from bearray.backbones.lora import load_adapter, save_adapter
from bearray.backbones.reference import reference_parameters
from bearray.backbones.soft import soft_embedding
from bearray.errors import ModelError, ResumeError
from bearray.negatives import KeptAnswers
from bearray.objectives import Objective
from bearray.runs import ADAPTER, SOFT
from bearray.training.adam import fresh_adam_state, trainable
from bearray.training.engine import Engine
from bearray.training.state_file import STATE, describe_files, read_state
from bearray.vectors import load_soft, save_soft

OPTIMIZER = "optimizer.safetensors"
REFERENCE = "reference.safetensors"
ANSWERS = "answers.safetensors"
"""Answers that were made once and are not used up; only where there are such."""


def save_checkpoint(
    folder: Path,
    model: nn.Module,
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
            if isinstance(model, PeftModel):
                save_adapter(model, folder / ADAPTER)
            soft = soft_embedding(model)
            if soft is not None:
                save_soft(soft, folder / SOFT)
            reference = reference_parameters(model)
            if reference:
                weights = {n: p.detach().cpu().contiguous() for n, p in reference.items()}
                save_file(weights, folder / REFERENCE)
    if rank == 0:
        save_file({name: value.contiguous() for name, value in optimizer.items()}, folder / OPTIMIZER)
        if answers is not None:
            save_file(answers.tensors(), folder / ANSWERS)
        state = {"epoch": epoch, "objective": objective.state_dict(), "files": describe_files(folder)}
        (folder / STATE).write_text(json.dumps(state, indent=2) + "\n")


def restore_checkpoint(folder: Path, model: nn.Module, engine: Engine, objective: Objective) -> int:
    """Load what `save_checkpoint` wrote, into any number of workers and any ZeRO stage.

    Returns:
        Finished epochs.

    Raises:
        ResumeError: the folder is incomplete or damaged.
    """
    try:
        for name in (STATE, OPTIMIZER, *([REFERENCE] if reference_parameters(model) else [])):
            if not (folder / name).is_file():  # opening a pipe would wait for ever
                raise FileNotFoundError(f"{name} is missing")
        state = read_state(folder)
        optimizer = load_file(folder / OPTIMIZER)
        _check_moments(optimizer, engine)
        reference = load_file(folder / REFERENCE) if reference_parameters(model) else {}
    except Exception as error:
        raise ResumeError(f"checkpoint {folder} cannot be read: {error}") from error
    with engine.gathered_adapter(modify=True):
        try:
            if isinstance(model, PeftModel):
                load_adapter(model, folder / ADAPTER, trainable=True)
            soft = soft_embedding(model)
            if soft is not None:
                load_soft(soft, folder / SOFT)
        except ModelError as error:
            raise ResumeError(f"checkpoint {folder} does not fit this run: {error}") from error
        _restore_reference(folder, model, reference)
    engine.adapter_changed()
    engine.load_optimizer_state(optimizer)
    try:
        objective.load_state_dict(state["objective"])
    except (KeyError, ValueError) as error:
        raise ResumeError(f"checkpoint {folder} does not fit this run: {STATE}: {error!r}") from error
    return int(state["epoch"])


def _check_moments(state: dict[str, torch.Tensor], engine: Engine) -> None:
    """The optimiser's tensors are those of the adapter, which the optimiser itself finds out a step later."""
    expected = {name: tensor.shape for name, tensor in fresh_adam_state(trainable(engine.module)).items()}
    if {name: tensor.shape for name, tensor in state.items()} != expected:
        raise ValueError(f"{OPTIMIZER} has other tensors than the adapter's moments")
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{OPTIMIZER}: {name} is of type {tensor.dtype}")


def load_answers(folder: Path) -> KeptAnswers | None:
    """The answers of a checkpoint, if it has any.

    Raises:
        ResumeError: their file is damaged.
    """
    if not (folder / ANSWERS).exists():
        return None
    try:
        if not (folder / ANSWERS).is_file():
            raise ValueError("it is not a file")
        kept = load_file(folder / ANSWERS)
        rows, titles, scores = (kept[name] for name in ("rows", "titles", "scores"))
        if rows.dim() != 1 or titles.dim() != 2 or titles.shape != scores.shape or len(rows) != len(titles):
            raise ValueError(
                f"arrays of shapes {list(rows.shape)}, {list(titles.shape)}, {list(scores.shape)}"
            )
        if rows.dtype != torch.int64 or titles.dtype != torch.int64 or scores.dtype != torch.float32:
            raise ValueError(f"arrays of types {rows.dtype}, {titles.dtype}, {scores.dtype}")
        if (rows < 0).any() or (rows.diff() <= 0).any():
            raise ValueError("its rows do not ascend")
        return KeptAnswers.from_tensors(kept)
    except Exception as error:
        raise ResumeError(f"checkpoint {folder} cannot be read: {ANSWERS}: {error!r}") from error


@torch.no_grad()
def _restore_reference(folder: Path, model: nn.Module, saved: dict[str, torch.Tensor]) -> None:
    """The frozen copy of the adapter, which is the reference of preference losses."""
    weights = reference_parameters(model)
    if {n: tuple(p.shape) for n, p in weights.items()} != {n: tuple(x.shape) for n, x in saved.items()}:
        raise ResumeError(f"checkpoint {folder} does not fit this run: {REFERENCE} has other tensors")
    for name, parameter in weights.items():
        parameter.copy_(saved[name])
