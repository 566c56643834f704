"""Where training starts: the base model with a new adapter, or with another run's, from a folder or a URI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel

from bearray.backbones.load import load_model
from bearray.backbones.lora import CONFIG_FILE, add_lora, check_adapter, start_from
from bearray.config import RunConfig
from bearray.errors import ConfigError, MissingFileError, ModelError
from bearray.forward import check_projection, use_tree_attention
from bearray.runs import ADAPTER, fetch_folder


@contextmanager
def init_adapter(place: str) -> Iterator[Path]:
    """The adapter that `train.init_adapter` names, as a local folder for as long as the block lasts.

    Args:
        place: a folder or URI of an adapter, or of a checkpoint, which has one in `adapter/`.

    Raises:
        ConfigError: there is no such folder, or no adapter in it.
    """
    try:
        with fetch_folder(place) as folder:
            found = [f for f in (folder, folder / ADAPTER) if (f / CONFIG_FILE).is_file()]
            if not found:
                raise ConfigError(
                    f"train.init_adapter is {place!r}, which has no {CONFIG_FILE}; "
                    "it must be the folder of an adapter or of a checkpoint"
                )
            yield found[0]
    except MissingFileError as error:
        raise ConfigError(f"train.init_adapter is {place!r}, which does not exist") from error


def check_init_adapter(config: RunConfig) -> None:
    """Fail before anything is trained when the adapter to start from cannot be used.

    Raises:
        ConfigError: it is not there, or was made with other LoRA settings.
    """
    if config.train.init_adapter is None:
        return
    with init_adapter(config.train.init_adapter) as folder:
        try:
            check_adapter(folder, config.model)
        except ModelError as error:
            raise ConfigError(f"train.init_adapter: {error}") from error


def new_model(config: RunConfig, device: torch.device) -> PeftModel:
    """The run's base model on `device` with its adapter: a new one, or that of `train.init_adapter`."""
    train = config.train
    dtype = {"auto": config.model.dtype, "bf16": "bfloat16", "fp32": "float32"}[train.precision]
    base = load_model(config.model.base, dtype=dtype, device=device)
    check_projection(base, device)
    use_tree_attention(base, device)
    model = add_lora(base, config.model, seed=train.seed)
    if train.init_adapter is not None:
        with init_adapter(train.init_adapter) as folder:
            start_from(model, folder, config.model)
    return model
