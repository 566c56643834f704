"""Names of base models: presets, hub ids, local folders, and stand-ins built on the spot."""

from __future__ import annotations

import os
from typing import Literal

from bearray.errors import ModelError

PRESETS = {
    "llama-3.2-1b": "meta-llama/Llama-3.2-1B",
    "llama-3.2-3b": "meta-llama/Llama-3.2-3B",
    "llama-3-8b": "meta-llama/Meta-Llama-3-8B",
    "qwen2.5-0.5b": "Qwen/Qwen2.5-0.5B",
    "qwen2.5-1.5b": "Qwen/Qwen2.5-1.5B",
    "qwen2.5-3b": "Qwen/Qwen2.5-3B",
    "qwen2.5-7b": "Qwen/Qwen2.5-7B",
    "qwen3-1.7b": "Qwen/Qwen3-1.7B-Base",
    "qwen3-4b": "Qwen/Qwen3-4B-Base",
    "qwen3-8b": "Qwen/Qwen3-8B-Base",
}
"""Short names of base models and their ids on the Hugging Face hub: the paper's Llamas (Table 4), and Qwen
models of like size, none tuned to follow instructions. `bearray.planning.shapes` knows their sizes."""

LOCAL_PREFIX = "local:"
STAND_IN_CARD = "bearray-base.json"
"""File that marks a folder as a stand-in made by `bearray.backbones.tiny`, and says from what."""

BaseModelKind = Literal["local stand-in", "hub", "folder"]


def expand_preset(base: str) -> str:
    """The hub id of a preset; any other name comes back unchanged, a leading `~` expanded.

    Raises:
        ModelError: `local:SIZE`, which only `resolve_base` can open, because it depends on the data.
    """
    if base.startswith(LOCAL_PREFIX):
        raise ModelError(
            f"base model {base!r} depends on the data; build it first (bearray base-model build)"
        )
    if base.startswith("~"):
        return os.path.expanduser(base)
    return base if os.path.isdir(base) else PRESETS.get(base.lower(), base)


def is_folder(base: str) -> bool:
    """Whether a base model's name means a path on disk and not a hub id.

    Hub ids are `name` or `owner/name`; a leading `/`, `.` or `~` or an existing folder means a path.
    """
    return base[:1] in ("/", ".", "~") or base.count("/") > 1 or os.path.exists(base)


def base_model_kind(base: str) -> BaseModelKind:
    """What a base model is, for reports: a stand-in must never pass for a pre-trained model."""
    if base.startswith(LOCAL_PREFIX) or os.path.isfile(os.path.join(os.path.expanduser(base), STAND_IN_CARD)):
        return "local stand-in"
    return "folder" if is_folder(base) else "hub"
