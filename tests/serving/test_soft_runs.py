"""Runs whose prompts hold vectors: served from their folder, and not exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from bearray.backbones.load import load_model
from bearray.backbones.soft import UserTable
from bearray.baselines.sasrec import SASRec
from bearray.config import SASRecConfig, from_dict, override, to_dict
from bearray.config.run import RunConfig
from bearray.errors import ConfigError
from bearray.serving import open_recommender
from bearray.serving.export import export_run
from bearray.task import load_task
from bearray.vectors import FrozenVectors, attach_new, save_soft


@pytest.fixture(scope="module")
def soft_folder(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder with another backbone, whose projectors were made and never trained."""
    folder = tmp_path_factory.mktemp("soft") / "allmrec-1"
    shutil.copytree(run_folder, folder)
    about = json.loads((folder / "config.json").read_text())
    config = override(from_dict(RunConfig, about["run"]), {"model.backbone": "allmrec"})
    (folder / "config.json").write_text(json.dumps(about | {"run": to_dict(config)}))
    backbone = load_task(config).backbone
    settings = SASRecConfig(hidden=8, layers=1)
    vectors = FrozenVectors(
        torch.randn(backbone.num_titles, 128, generator=torch.Generator().manual_seed(0)),
        UserTable(),
        SASRec(backbone.num_titles, settings),
        settings,
    )
    model = load_model(config.model.base, dtype="float32", device="cpu")
    [checkpoint] = (folder / "checkpoints").iterdir()
    save_soft(attach_new(model, backbone, vectors), checkpoint / "soft")
    return folder


def test_it_is_served_from_its_folder(soft_folder, recommender, histories) -> None:
    ours = open_recommender(str(soft_folder), device="cpu")
    found = ours.recommend(histories)
    assert [len(one.items) for one in found] == [4] * len(histories)
    assert len(ours.backbone.users) == 0  # of histories that were asked for nothing stays
    plain = recommender.recommend(histories)
    assert [i.score for i in found[0].items] != pytest.approx([i.score for i in plain[0].items], abs=1e-3)
    together: Any = ours.recommend([*histories, ["A title that nobody knows"]], unknown_titles=True)
    for one, again in zip(found, together, strict=False):
        assert [i.title for i in one.items] == [i.title for i in again.items]


def test_it_is_not_exported(soft_folder, tmp_path) -> None:
    with pytest.raises(ConfigError, match="backbone allmrec, whose prompts hold vectors beside words"):
        export_run(str(soft_folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()
