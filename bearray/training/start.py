"""Where training starts: another run's adapter, from a folder or a URI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bearray.backbones.lora import CONFIG_FILE, check_adapter
from bearray.config import RunConfig
from bearray.errors import ConfigError, MissingFileError, ModelError
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
