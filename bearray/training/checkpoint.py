"""Checkpoints: adapter, optimiser and counters as safetensors and JSON, independent of workers and ZeRO
stage."""

from __future__ import annotations

import json
from pathlib import Path

from peft import PeftModel
from safetensors.torch import load_file, save_file

from bearray.backbones.lora import load_adapter, save_adapter
from bearray.errors import ModelError, ResumeError
from bearray.objectives import Objective
from bearray.training.engine import Engine

ADAPTER = "adapter"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"


def save_checkpoint(
    folder: Path, model: PeftModel, engine: Engine, objective: Objective, *, epoch: int, rank: int
) -> None:
    """Write the state after `epoch` finished epochs. Every worker must call it; rank 0 writes.

    state.json is written last: a folder with it is complete.
    """
    optimizer = engine.optimizer_state()
    with engine.gathered_adapter():
        if rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            save_adapter(model, folder / ADAPTER)
    if rank == 0:
        save_file({name: value.contiguous() for name, value in optimizer.items()}, folder / OPTIMIZER)
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
    except Exception as error:
        raise ResumeError(f"checkpoint {folder} cannot be read: {error}") from error
    with engine.gathered_adapter(modify=True):
        try:
            load_adapter(model, folder / ADAPTER, trainable=True)
        except ModelError as error:
            raise ResumeError(f"checkpoint {folder} does not fit this run: {error}") from error
    engine.adapter_changed()
    engine.load_optimizer_state(optimizer)
    objective.load_state_dict(state["objective"])
    return int(state["epoch"])
