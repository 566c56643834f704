"""A trained run of a few hundred parameters with what opening it takes: data set, base model, checkpoint."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

DATA, BASE, RUN = "data", "base", "run"
"""Folders of a sample."""
CHECKPOINT = "checkpoints/checkpoint_2"


def write_trained_run(folder: Path, **changes: Any) -> None:
    """`changes` to the run's settings, with `__` for the dots."""
    from bearray.backbones.lora import add_lora, save_adapter
    from bearray.config import RunConfig, override, to_dict
    from bearray.data import open_dataset
    from tests.data.conftest import write_layout
    from tests.fuzz.models import micro_model, save_micro_base
    from tests.report.storage import evaluate, ranks

    write_layout(folder / DATA)
    (folder / BASE).mkdir()
    save_micro_base(folder / BASE)
    small = {
        "data.path": DATA, "model.base": BASE, "model.lora_r": 2, "model.max_prompt_tokens": 512,
        "decoding.beam_width": 3, "decoding.batch_size": 4,
    }  # fmt: skip
    config = override(RunConfig(), small | {name.replace("__", "."): v for name, v in changes.items()})
    checkpoint = folder / RUN / CHECKPOINT
    save_adapter(add_lora(micro_model(), config.model), checkpoint / "adapter")
    (checkpoint / "state.json").write_text('{"epoch": 2}')
    about = {
        "run": to_dict(config),
        "method": "BEAR",
        "role": "method",
        "dataset": "demo",
        "base_model": "local:tiny",
        "base_model_kind": "local stand-in",
        "data_hash": open_dataset(str(folder / DATA)).content_hash,
        "versions": {"torch": "2.13.0"},
        "git": "abc1234",
        "created": "2026-01-01T00:00:00+00:00",
    }
    import numpy as np

    groups = evaluate(ranks(3, 0.5, 0), np.arange(3))
    result = {
        "status": "finished",
        "error": None,
        "best_epoch": 2,
        "valid": {"ndcg@10": 0.25},
        "checkpoint": CHECKPOINT,
        "seconds": {"train": 3.5, "valid": 0.5},
        "chosen": True,
        "test": {"trie": groups, "exact": groups | {"proven": 1.0}},
    }
    (folder / RUN / "config.json").write_text(json.dumps(about))
    (folder / RUN / "result.json").write_text(json.dumps(result))


def scratch_folder() -> Path:
    """A folder that lives as long as this process."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-kept-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def open_sample(folder: Path) -> Any:
    from bearray.serving import open_recommender

    return open_recommender(
        str(folder / RUN), data_dir=str(folder / DATA), base_model=str(folder / BASE), device="cpu"
    )


@lru_cache(maxsize=1)
def good_recommender() -> Any:
    """Of an undamaged run, for readers of requests."""
    folder = scratch_folder()
    write_trained_run(folder)
    return open_sample(folder)
