"""`bearray export --run RUN --out DIR`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal


def export(
    *,
    run: str,
    out: Path,
    dtype: Literal["float32", "bfloat16"] = "float32",
    data_dir: str | None = None,
    base_model: str | None = None,
) -> None:
    """Put all that a trained model needs to recommend into one folder, to serve it or to give it away.

    The folder holds the model with its adapter merged (safetensors, in the form of transformers), the
    tokenizer, the catalogue (items.parquet; nobody's history), settings and figures for programs
    (bearray.json) and a model card (README.md). `bearray recommend` and `bearray serve` take it as --run.

    Args:
        run: Run folder or URI.
        out: Folder to make; it must not exist, or be empty.
        dtype: Of the weights. bfloat16 halves the files, but rounds away part of what the adapter has learnt.
        data_dir: Folder or URI of the run's data set, if it was moved or is not a folder here.
        base_model: Folder or hub id of the run's base model, if it was moved or never downloaded here.
    """
    os.environ.setdefault(
        "DS_ACCELERATOR", "cpu"
    )  # merging needs no GPU, and DeepSpeed would say it sees none
    from bearray.quiet import quiet_libraries, show_downloads
    from bearray.serving.export import export_run
    from bearray.tuning.watch import say

    quiet_libraries()
    show_downloads()
    folder = export_run(run, out, dtype=dtype, data_dir=data_dir, base_model=base_model, say=say)
    size = sum(file.stat().st_size for file in folder.iterdir())
    say(f"done: {size / 1e6:,.0f} MB; read {folder / 'README.md'} before you give it away")
    print(folder)
