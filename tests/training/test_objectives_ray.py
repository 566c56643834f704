"""Every objective and backbone takes two steps under Ray Train with two workers, validates and saves."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import ray.train
from ray.train import ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from safetensors.torch import load_file

from bearray.config import from_dict, to_dict
from bearray.objectives import OBJECTIVES

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

ROUNDS: dict[str, dict[str, Any]] = {"sprec": {"train.epochs": 2, "data.train_windows": 4}}
"""Objectives whose epochs differ: a step of each kind."""


def two_steps_each(settings: dict[str, Any]) -> None:
    """What each worker does: one run after the other, so that Ray's start-up is paid once."""
    import torch

    from bearray.config import RunConfig
    from bearray.task import load_task
    from bearray.training.loop import Loop

    torch.set_num_threads(1)
    os.environ["BEARRAY_CACHE"] = str(Path(settings["folder"]) / "cache")  # both workers ask for SASRec there
    context = ray.train.get_context()
    for name, values in settings["configs"].items():
        config = from_dict(RunConfig, values)
        rows: list[dict[str, Any]] = []
        loop = Loop(
            config,
            load_task(config),
            rank=context.get_world_rank(),
            world=context.get_world_size(),
            device=ray.train.torch.get_device(),
            log=rows.append,
        )
        while loop.epoch < config.train.epochs:
            loop.run_epoch()
        valid = loop.validate()
        folder = Path(settings["folder"]) / name
        loop.save(folder)
        if context.get_world_rank() == 0:
            (folder / "rows.json").write_text(json.dumps({"steps": rows, "valid": valid}))
    ray.train.report({"done": len(settings["configs"])})


SMALL: dict[str, Any] = {
    "data.train_windows": 8,
    "data.valid_windows": 4,
    "train.batch_size": 4,
    "train.micro_batch_size": 2,
    "train.num_workers": 2,
    "train.epochs": 1,
}
SOFT: dict[str, Any] = {
    "model.soft.sasrec.hidden": 8,
    "model.soft.sasrec.train.epochs": 1,
    "model.soft.align_epochs": 1,
    "model.soft.curriculum": False,
    "train.engine": "deepspeed",
}
BACKBONES: dict[str, dict[str, Any]] = {
    "llara": {"model.lora_r": 0, **SOFT},
    "allmrec": {"train.zero_stage": 3, **SOFT},
}
KINDS = {"llara": {"item"}, "allmrec": {"item", "user"}}


def test_two_steps_of_each_objective_and_backbone(make_run, local_ray, tmp_path) -> None:
    runs = {
        name: {"objective.name": name, "objective.negatives": 2, **ROUNDS.get(name, {})}
        for name in sorted(OBJECTIVES)
    } | {name: {"model.backbone": name, **changes} for name, changes in BACKBONES.items()}
    configs = {name: to_dict(make_run(SMALL | changes)) for name, changes in runs.items()}
    result = TorchTrainer(
        two_steps_each,
        train_loop_config={"configs": configs, "folder": str(tmp_path)},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        torch_config=TorchConfig(backend="gloo"),
        run_config=ray.train.RunConfig(name="each", storage_path=str(tmp_path / "ray")),
    ).fit()
    assert result.error is None
    for name in configs:
        found = json.loads((tmp_path / name / "rows.json").read_text())
        assert [row["step"] for row in found["steps"]] == [0, 1], name
        assert all(math.isfinite(row["loss"]) and math.isfinite(row["nll"]) for row in found["steps"]), name
        assert found["valid"]["valid_n"] == 4 and 0 <= found["valid"]["valid_ndcg@10"] <= 1, name
        assert (tmp_path / name / "adapter").exists() == (name != "llara")
        if name != "llara":
            adapter = load_file(tmp_path / name / "adapter" / "adapter_model.safetensors")
            assert any(weight.any() for key, weight in adapter.items() if "lora_B" in key), name
        if name in KINDS:
            projector = load_file(tmp_path / name / "soft" / "projector.safetensors")
            assert {key.partition(".")[0] for key in projector} == KINDS[name]
