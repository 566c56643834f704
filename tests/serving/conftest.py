"""A finished run whose adapter matters, as a sweep leaves it in storage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bearray.backbones.load import load_model
from bearray.backbones.lora import add_lora, save_adapter
from bearray.config import to_dict
from bearray.data import open_dataset
from bearray.serving import Recommender, open_recommender
from tests.adapters import stir

METRIC = {"mean": 0.25, "low": 0.125, "high": 0.5}


@pytest.fixture(scope="package")
def run_folder(
    make_run: Callable[..., Any], demo_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    config = make_run({"decoding.beam_width": 4})
    folder = tmp_path_factory.mktemp("storage") / "runs" / "bear-1234"
    base = load_model(config.model.base, dtype="float32", device="cpu")
    model = stir(add_lora(base, config.model, seed=0))
    checkpoint = folder / "checkpoints" / "checkpoint_2"
    save_adapter(model, checkpoint / "adapter")
    (checkpoint / "state.json").write_text('{"epoch": 2}')
    about = {
        "run": to_dict(config),
        "method": "BEAR",
        "role": "method",
        "dataset": "demo",
        "base_model": "local:tiny",
        "base_model_kind": "local stand-in",
        "data_hash": open_dataset(demo_dir).content_hash,
        "versions": {"torch": "2.13.0", "ray": "2.60.0"},
        "git": "abc1234",
        "created": "2026-01-01T00:00:00+00:00",
    }
    groups = {"all": {"n": 11, "users": 9, "hr@10": METRIC, "ndcg@10": METRIC}, "warm": {"n": 0}}
    result = {
        "status": "finished",
        "error": None,
        "best_epoch": 2,
        "valid": {"ndcg@10": 0.25},
        "checkpoint": str(checkpoint),
        "seconds": {"train": 3.5, "valid": 0.5},
        "chosen": True,
        "test": {"trie": groups, "full": groups},
    }
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "result.json").write_text(json.dumps(result))
    return folder


@pytest.fixture(scope="package")
def recommender(run_folder: Path) -> Recommender:
    return open_recommender(str(run_folder), device="cpu")


@pytest.fixture(scope="package")
def histories(recommender: Recommender) -> list[list[str]]:
    """Of 1, 2, 3 and 4 titles."""
    titles = recommender.catalog.titles
    return [titles[i : i + 1 + i % 4] for i in (0, 5, 10, 15)]
