"""`bearray base-model`: build a stand-in where no pre-trained model is at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def build(
    *,
    data_dir: Path,
    size: Literal["tiny", "small", "medium"] = "tiny",
    out: Path | None = None,
    seed: int = 0,
    steps: int | None = None,
) -> None:
    """Train a tokenizer and a small Llama on a data set's training split, and print the folder.

    A stand-in for a pre-trained model, not one. It is cached: the same training split, size, steps and seed
    are not built twice. Pass the folder as --base-model, or let `local:tiny` (small, medium) build and find
    it by itself.

    Args:
        data_dir: Folder with items.parquet and sequences_{train,valid,test}.parquet.
        size: About 1, 7 or 30 million parameters; tiny takes under a minute on a CPU, medium wants a GPU.
        out: Folder to put the model in (default: the cache, $BEARRAY_CACHE or ~/.cache/bearray/base-models).
        seed: Seed of initialisation and of the order of the text.
        steps: Optimiser steps; more make a better stand-in (default: what takes a minute for tiny).
    """
    from bearray.backbones.tiny import build_base_model
    from bearray.data import open_dataset

    print(build_base_model(open_dataset(data_dir), size, seed=seed, steps=steps, out=out))
