"""From the name of a base model to something that opens; a local stand-in is built where asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bearray.backbones.presets import LOCAL_PREFIX, expand_preset

if TYPE_CHECKING:
    from bearray.data import Dataset


def resolve_base(base: str, dataset: Dataset) -> str:
    """Turn the name in a config into something that `load_model` opens.

    - `local:tiny`, `local:small`, `local:medium`: the folder of a stand-in built from the data's training
      split; it is built now if the cache does not have it.
    - a preset (any case): its hub id.
    - a folder: its absolute path, since workers have other working directories than who names it.
    - anything else, i.e. a hub id: unchanged.

    Raises:
        ModelError: an unknown local size.
    """
    if base.startswith(LOCAL_PREFIX):
        from bearray.backbones.tiny import build_base_model  # torch is needed only to build

        return str(build_base_model(dataset, base.removeprefix(LOCAL_PREFIX)))
    name = expand_preset(base)
    return os.path.abspath(name) if os.path.isdir(name) else name
