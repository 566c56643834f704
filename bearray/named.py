"""What a run's files may name: its checkpoint, its data set, its base model.

Somebody else may have written them. So an address in them is not followed: a checkpoint is looked for within
the run's own storage, data must lie in a folder here, and a base model of the hub must be one that was asked
for before. Whoever trusts an address repeats it, as `--data-dir` or `--base-model`.
"""

from __future__ import annotations

import os

from bearray.backbones.presets import LOCAL_PREFIX, PRESETS, expand_preset, is_folder
from bearray.errors import DataError, MissingFileError, ModelError
from bearray.runs import CHECKPOINTS, Storage

RUNS = "runs"
"""Folder of a storage that holds the trained runs."""
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
_LISTED = {name.lower() for pair in PRESETS.items() for name in pair}


def checkpoint_place(folder: Storage, recorded: str | None, decoded_from: str | None = None) -> str:
    """A run's checkpoint, wherever its storage was moved to.

    Args:
        folder: the run folder.
        recorded: the folder where it was written; of this only the last name counts.
        decoded_from: of a run that decodes another one's model: the other's name, in the same storage.

    Raises:
        MissingFileError: none is recorded, or it is not there.
        DataError, StorageError: what is recorded is no folder's name.
    """
    if not recorded:
        raise MissingFileError(f"{folder.root}/result.json names no checkpoint: the run cannot be decoded")
    name = recorded.rstrip("/").rpartition("/")[2]
    if name in ("", ".", ".."):
        raise DataError(
            f"{folder.root}/result.json: checkpoint is {recorded!r}; it must be a checkpoint's folder"
        )
    places = [folder.child(CHECKPOINTS, name)]
    if decoded_from:
        storage = Storage(folder.root.rstrip("/").rsplit("/", 2)[0] or "/")
        places.append(storage.child(RUNS, decoded_from, CHECKPOINTS, name))
    for place in places:
        if place.exists():
            return place.root
    raise MissingFileError(
        f"the checkpoint of {folder.root} is gone: there is no {' and no '.join(p.root for p in places)}. It "
        f"was written as {recorded!r}; a run's checkpoint is opened only within its storage, so copy it there"
    )


def data_place(name: str, path: str) -> str:
    """The data set that a run names, if it is a folder of this machine.

    Args:
        name: the run's. path: as its config.json has it.

    Raises:
        MissingFileError: it is an address, or there is no such folder.
    """
    if "://" in path or "\0" in path or not path:
        raise MissingFileError(
            f"{name} names its data set as {path!r}, and an address that a run names is not opened; if you "
            "trust it, repeat it as --data-dir; or give a folder"
        )
    if not os.path.isdir(os.path.expanduser(path)):
        raise MissingFileError(
            f"the data set of {name} is not here: {path} does not exist; give its folder as --data-dir"
        )
    return path


def base_place(name: str, base: str) -> str:
    """The base model that a run names, if it is a folder, one that bearray lists, or in the hub's cache here.

    Args:
        name: the run's. base: as its config.json has it.

    Raises:
        ModelError: it would have to be downloaded because a run says so.
    """
    if base.startswith(LOCAL_PREFIX) or is_folder(base) or base.lower() in _LISTED or _in_cache(base):
        return base  # a folder that is not there is named by who opens it; nothing is fetched for it
    raise ModelError(
        f"{name} names the base model {base!r}, which was never downloaded here, and a run's word is not "
        "enough for that; if you trust it, repeat its name as --base-model, or download it (hf download)"
    )


def _in_cache(base: str) -> bool:
    from huggingface_hub import try_to_load_from_cache  # here: who only reads runs needs no hub
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(expand_preset(base), file) for file in _TOKENIZER]
    except HFValidationError:  # no hub id at all
        return False
    return any(isinstance(file, str) for file in found)
