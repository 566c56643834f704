"""Where training starts: the base model with new weights to train, or with another run's, from a folder or a
URI.

What is trained is an adapter, the projectors of soft tokens, or both; another run's are in the folders
`adapter/` and `soft/` of its checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from torch import nn
from transformers import PreTrainedModel

from bearray.backbones.load import load_model
from bearray.backbones.lora import CONFIG_FILE, add_lora, check_adapter, start_from
from bearray.config import ModelConfig, RunConfig
from bearray.errors import ConfigError, MissingFileError, ModelError
from bearray.forward import check_projection, use_tree_attention
from bearray.runs import ADAPTER, SOFT, fetch_folder
from bearray.task import Task, load_task
from bearray.vectors import FrozenVectors, attach_new, attach_saved, make_vectors
from bearray.vectors.attach import PROJECTOR


@dataclass(frozen=True)
class Start:
    """What another run has trained; local folders."""

    adapter: Path | None
    soft: Path | None


@contextmanager
def start_weights(place: str) -> Iterator[Start]:
    """What `train.init_adapter` names, in local folders for as long as the block lasts.

    Args:
        place: a folder or URI of an adapter, or of a checkpoint.

    Raises:
        ConfigError: there is no such folder, or nothing in it that was trained.
    """
    try:
        with fetch_folder(place) as folder:
            adapters = [f for f in (folder, folder / ADAPTER) if (f / CONFIG_FILE).is_file()]
            soft = folder / SOFT
            found = Start(adapters[0] if adapters else None, soft if (soft / PROJECTOR).is_file() else None)
            if found == Start(None, None):
                raise ConfigError(
                    f"train.init_adapter is {place!r}, which has no {CONFIG_FILE}; "
                    "it must be the folder of an adapter or of a checkpoint"
                )
            yield found
    except MissingFileError as error:
        raise ConfigError(f"train.init_adapter is {place!r}, which does not exist") from error


def check_init_adapter(config: RunConfig) -> None:
    """Fail before anything is trained when the weights to start from cannot be used.

    Raises:
        ConfigError: they are not there, or were made with other LoRA settings or for another backbone.
    """
    if config.train.init_adapter is None:
        return
    with start_weights(config.train.init_adapter) as start:
        try:
            _check_start(start, config.model)
        except ModelError as error:
            raise ConfigError(f"train.init_adapter: {error}") from error


def _check_start(start: Start, config: ModelConfig) -> None:
    if (start.adapter is None) != (config.lora_r == 0):
        has, wants = ("no", "one") if start.adapter is None else ("an", "none")
        raise ModelError(f"there is {has} adapter, but model.lora_r is {config.lora_r}, which needs {wants}")
    if (start.soft is None) != (config.backbone == "bigrec"):
        has = "no projector" if start.soft is None else "a projector"
        raise ModelError(f"it has {has} of soft tokens, so it is no run of backbone {config.backbone}")
    if start.adapter is not None:
        check_adapter(start.adapter, config)


def new_model(config: RunConfig, device: torch.device, task: Task | None = None) -> nn.Module:
    """The run's base model on `device` with what is to be trained: new, or that of `train.init_adapter`.

    Args:
        config: the run.
        device: where the model goes.
        task: the run's data, whose prompts the model is to read; needed by backbones with soft tokens, and
            opened where it is not given.

    Raises:
        ConfigError, ModelError: the base model or the weights to start from cannot be used.
        As `bearray.vectors.make_vectors`.
    """
    train, model = config.train, config.model
    dtype = {"auto": model.dtype, "bf16": "bfloat16", "fp32": "float32"}[train.precision]
    base = load_model(model.base, dtype=dtype, device=device)
    check_projection(base, device)
    use_tree_attention(base, device)
    if train.init_adapter is None:
        return _with_parts(base, config, Start(None, None), task)
    with start_weights(train.init_adapter) as start:
        _check_start(start, model)
        return _with_parts(base, config, start, task)


def _with_parts(base: nn.Module, config: RunConfig, start: Start, task: Task | None) -> nn.Module:
    """The base model with its adapter and, behind an input embedding that reads them, projectors."""
    vectors = None
    if config.model.backbone != "bigrec":
        task = task or load_task(config)
        vectors = None if start.soft is not None else _vectors(task, base)
    if config.model.lora_r == 0:
        model: nn.Module = base.requires_grad_(False)
    else:
        adapted = add_lora(cast(PreTrainedModel, base), config.model, seed=config.train.seed)
        if start.adapter is not None:
            start_from(adapted, start.adapter, config.model)
        model = adapted
    # Behind the adapter, which would freeze all that is there before it.
    if task is not None and start.soft is not None:
        attach_saved(model, task.backbone, start.soft)
    elif task is not None and vectors is not None:
        attach_new(model, task.backbone, vectors, seed=config.train.seed)
    return model


def _vectors(task: Task, base: nn.Module) -> FrozenVectors:
    """The vectors of the run's soft tokens, the same on all workers; a collective where there are several.

    Each machine has its own cache, and trainings on different machines differ in their last digits.
    """
    first = not dist.is_initialized() or dist.get_rank() == 0
    vectors = make_vectors(
        task.config.model.soft, task.backbone, task.dataset, task.catalog, base, progress=first
    )
    if dist.is_initialized() and dist.get_world_size() > 1:
        told = [vectors.tensors() if first else None]
        dist.broadcast_object_list(told, src=0)
        assert told[0] is not None
        vectors.replace(told[0])
    return vectors
