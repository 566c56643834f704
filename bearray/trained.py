"""Trained runs as they stand in storage: settings, the checkpoint that was best by validation, its model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, cast

import torch
from torch import nn

from bearray.backbones.base import Backbone
from bearray.backbones.load import load_model
from bearray.backbones.lora import load_adapter, merge_for_inference
from bearray.config import (
    ModelConfig,
    RunConfig,
    config_hash,
    differences,
    from_dict,
    override,
    to_dict,
)
from bearray.data import Dataset, open_dataset
from bearray.errors import DataError, MissingFileError, ResumeError
from bearray.named import base_place, checkpoint_place, data_place
from bearray.runs import ADAPTER, CHECKPOINTS, SOFT, Storage, fetch_folder

CONFIG, RESULT = "config.json", "result.json"
_NEVER_HOLDS_RUNS = (CHECKPOINTS, "optuna", "predictions", "report", "tune")


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A finished run."""

    folder: Storage
    config: RunConfig
    checkpoint: str
    """Folder of its best checkpoint by validation, where it is now."""
    method: str
    dataset: str
    base_model: str
    data_hash: str | None
    """Content hash of the data set that it was trained on."""

    @property
    def name(self) -> str:
        return self.folder.root.rstrip("/").rpartition("/")[2]


def trained_runs(places: Sequence[str]) -> list[TrainedRun]:
    """The runs that some folders stand for, each once.

    Args:
        places: run folders, and storage folders of sweeps: of these all runs that were chosen for the test
            and have a checkpoint (baselines have none).

    Raises:
        MissingFileError: a folder that is not there or holds no such run, or a checkpoint that is gone.
        ResumeError: a run folder whose training has not ended, or has failed.
        DataError: a file in it is damaged.
    """
    found: dict[str, TrainedRun] = {}
    for place in places:
        storage = Storage(place)
        if not storage.exists():
            raise MissingFileError(f"{place} does not exist; give a run folder or the storage of a sweep")
        folders = [storage] if storage.exists(CONFIG) else _chosen(storage)
        for folder in folders:
            found.setdefault(folder.root.rstrip("/"), open_run(folder))
    return list(found.values())


def open_run(folder: Storage) -> TrainedRun:
    """One run folder. Raises as `trained_runs`."""
    where = folder.root
    if not folder.exists(RESULT):
        raise ResumeError(f"{where} is not finished: it has no {RESULT}; run its sweep again to continue it")
    about, result = folder.read_json(CONFIG), folder.read_json(RESULT)
    if result.get("status") != "finished":
        raise ResumeError(f"{where} is not finished: its training failed ({result.get('error')})")
    try:
        return TrainedRun(
            folder=folder,
            config=from_dict(RunConfig, about["run"]),
            checkpoint=checkpoint_place(folder, result.get("checkpoint"), about.get("decoded_from")),
            method=str(about["method"]),
            dataset=str(about["dataset"]),
            base_model=str(about["base_model"]),
            data_hash=about.get("data_hash"),
        )
    except KeyError as error:
        raise DataError(f"{where}/{CONFIG} has no {error}; it is no run's config.json") from error


def relocated(run: TrainedRun, *, data_dir: str | None = None, base_model: str | None = None) -> RunConfig:
    """The run's settings with the places where its data and base model are now, checked.

    Args:
        run: the run.
        data_dir: folder or URI of its data set; None: where it was, which must be a folder here.
        base_model: folder or hub id of its base model; None: what it names, if that is a folder, one that
            bearray lists, or in the hub's cache here (`bearray.named`).

    Raises:
        MissingFileError: the data set is not there.
        DataError: it is damaged, or the run does not say which it is.
        ModelError: a base model that would have to be downloaded because the run says so.
        ResumeError: it is another data set than the one that the run was trained on.
    """
    if run.data_hash is None:
        raise DataError(
            f"{run.folder.root}/{CONFIG} has no data_hash, so nobody can tell whether a data set is the one "
            "that the run was trained on; train it again"
        )
    changes = {
        "data.path": data_dir if data_dir is not None else data_place(run.name, run.config.data.path),
        "model.base": base_model if base_model is not None else base_place(run.name, run.config.model.base),
    }
    config = override(run.config, changes)
    found = open_dataset(config.data.path, strict=config.data.strict).content_hash
    if found != run.data_hash:
        raise ResumeError(
            f"{run.name} was trained on other data: {config.data.path} has content hash {found[:12]}, the "
            f"run's config.json {run.data_hash[:12]}; give the data set it was trained on as --data-dir"
        )
    return config


def load_trained(
    config: ModelConfig,
    checkpoint: str | None,
    device: torch.device | str,
    *,
    merge: bool = True,
    backbone: Backbone | None = None,
) -> nn.Module:
    """The base model with a checkpoint's adapter and projectors, in evaluation mode.

    Args:
        config: `config.base` resolved.
        checkpoint: folder of a training checkpoint, or None for the bare base model.
        device: where the model goes.
        merge: fold the adapter into float32 weights, which decodes faster; in bfloat16 the merge would round
            the adapter away, so it is not done there.
        backbone: what writes the prompts; needed where they hold soft tokens. Those of a bare base model are
            blank.

    Raises:
        ModelError: a base model or adapter that cannot be used.
        MissingFileError: no such checkpoint.
    """
    # Here: who only reads runs needs no model's libraries.
    from bearray.forward import use_tree_attention
    from bearray.vectors import attach_new, attach_saved

    model: Any = load_model(config.base, dtype=config.dtype, device=device)
    use_tree_attention(model, device)
    soft = config.backbone != "bigrec"
    if soft and backbone is None:
        raise ValueError(f"backbone {config.backbone} has prompts with soft tokens; give what writes them")
    if checkpoint is not None:
        with fetch_folder(checkpoint) as local:
            if config.lora_r:
                model = load_adapter(model, local / ADAPTER)
            if soft:
                attach_saved(model, cast(Backbone, backbone), local / SOFT)
        if merge and config.lora_r and model.dtype == torch.float32:
            model = merge_for_inference(model)
    elif soft:
        attach_new(model, cast(Backbone, backbone), None)
    model.requires_grad_(False).eval()
    return cast(nn.Module, model)


def model_identity(config: RunConfig, checkpoint: str | None, dataset: Dataset) -> dict[str, Any]:
    """What a manifest says of the model behind a table: the same wherever data, base model and run folder
    lie, and also after a later version has added a setting."""
    plain = [override(c, {"data.path": "", "model.base": "-"}) for c in (RunConfig(), config)]
    groups = ("data", "model", "objective", "train")
    default, settings = ({name: to_dict(c)[name] for name in groups} for c in plain)
    return {
        "checkpoint": checkpoint and PurePosixPath(checkpoint).name,
        "base_model": PurePosixPath(config.model.base).name,
        "data": dataset.content_hash,
        "config": config_hash(differences(default, settings)),
    }


def _chosen(storage: Storage) -> list[Storage]:
    names = set(storage.files(without=_NEVER_HOLDS_RUNS))
    folders = [os.path.dirname(n) for n in sorted(names) if os.path.basename(n) == CONFIG]
    runs = [storage.child(f) for f in folders if f"{f}/{RESULT}" in names]
    results = [(run, run.read_json(RESULT)) for run in runs]
    chosen = [run for run, result in results if result.get("chosen") and result.get("checkpoint")]
    if not chosen:
        there = f"of {len(runs)} runs none was chosen for the test" if runs else "there is no finished run"
        raise MissingFileError(f"{storage.root}: {there}; give a run folder or the storage of a sweep")
    return chosen
