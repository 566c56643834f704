"""Opening a trained model to recommend with: a run folder, or what `bearray export` made of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bearray.backbones.base import Backbone
from bearray.backbones.bigrec import BigRec
from bearray.backbones.load import load_model, load_tokenizer
from bearray.backbones.presets import base_model_kind
from bearray.catalog import Catalog, build_catalog
from bearray.catalog_cache import load_or_encode
from bearray.config import DecodingConfig, ModelConfig, from_dict
from bearray.data.checks import read_items
from bearray.data.prompts import PromptTemplate
from bearray.data.storage import locate, read_parquet
from bearray.errors import ConfigError, DataError, MissingFileError
from bearray.forward import use_tree_attention
from bearray.runs import Storage, fetch_folder
from bearray.serving.recommender import Recommender
from bearray.task import load_task
from bearray.trained import CONFIG, TrainedRun, load_trained, open_run, relocated

EXPORT = "bearray.json"
"""File that makes a folder an export: what the model was trained on, and how it is asked."""
ITEMS = "items.parquet"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Number types of an export's weights, which are opened as they are."""
_NAMED = 6
"""Runs that a message names."""
FORMAT = 1
"""Of `EXPORT`; a number that this version does not know is refused."""


@dataclass(frozen=True)
class Opened:
    """A trained model's parts, apart from its weights."""

    backbone: Backbone
    catalog: Catalog
    items: pd.DataFrame
    """item_id, title."""
    decoding: DecodingConfig
    unescape: bool
    about: dict[str, Any]
    """Plain values for people: run, method, dataset, base_model, items, titles, notes."""


def open_recommender(
    place: str,
    *,
    data_dir: str | None = None,
    base_model: str | None = None,
    device: torch.device | str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Recommender:
    """Open a run folder or an export.

    Args:
        place: folder or URI.
        data_dir, base_model: of a run: where its data set and base model are now; None: what the run names,
            as far as that is opened on a run's word (`bearray.named`).
        device: None takes a GPU where there is one.
        say: told what is being opened.

    Raises:
        MissingFileError: the folder, its checkpoint or its data are not there.
        ResumeError: a run that is not finished, or data that are not the run's.
        ConfigError: `data_dir` or `base_model` of an export, which holds both.
        DataError, ModelError: a damaged file, or an address that is not followed.
    """
    on = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    folder = find(place)
    if folder.exists(EXPORT):
        if data_dir is not None or base_model is not None:
            raise ConfigError(
                f"{place} is an export, which holds its catalogue and its model; leave out --data-dir and "
                "--base-model"
            )
        say(f"opening the export {place} on {on}")
        with fetch_folder(place) as local:
            return _open_export(local, on)
    run = open_run(folder)
    say(f"reading the catalogue of {run.dataset}")
    opened, model = open_parts(run, data_dir=data_dir, base_model=base_model)
    hub = ", downloading what is not in the cache" if opened.about["base_model_kind"] == "hub" else ""
    say(f"opening {run.base_model} with what {run.name} has learnt, on {on}{hub}")
    trained = load_trained(model, run.checkpoint, on, backbone=opened.backbone)
    return _recommender(trained, opened)


def find(place: str) -> Storage:
    """A run folder or an export.

    Raises:
        MissingFileError: it is neither; the message says what it seems to be.
    """
    folder = Storage(place)
    if folder.exists(EXPORT) or folder.exists(CONFIG):
        return folder
    if not folder.exists():
        raise MissingFileError(f"{place} does not exist; give a run folder or an export")
    runs = [f"runs/{name}" for name in folder.child("runs").names()]
    named = ", ".join(runs[:_NAMED]) + (", ..." if len(runs) > _NAMED else "")
    hint = f"; it looks like a sweep's storage, which holds {named}" if runs else ""
    raise MissingFileError(f"{place} is no run folder (no {CONFIG}) and no export (no {EXPORT}){hint}")


def open_parts(
    run: TrainedRun, *, data_dir: str | None = None, base_model: str | None = None
) -> tuple[Opened, ModelConfig]:
    """All of a run but its weights, and what opens those. Raises as `open_recommender`."""
    config = relocated(run, data_dir=data_dir, base_model=base_model)
    task = load_task(config)
    about = {
        "run": run.name,
        "method": run.method,
        "dataset": run.dataset,
        "base_model": run.base_model,
        "base_model_kind": base_model_kind(config.model.base),
        "items": len(task.catalog.title_of_item),
        "titles": len(task.catalog),
    }
    opened = Opened(
        task.backbone, task.catalog, task.dataset.items, config.decoding, config.data.unescape, about
    )
    return opened, config.model


def _open_export(folder: Path, device: torch.device) -> Recommender:
    about = read_export(Storage(str(folder)))
    try:
        prompt, decoding = about["prompt"], from_dict(DecodingConfig, about["decoding"])
        words = PromptTemplate(*(str(prompt[name]) for name in ("plural", "past", "singular")))
        unescape, dtype = bool(about["unescape"]), DTYPES[about["dtype"]]
        limit = prompt["max_tokens"]
        if type(limit) is not int or limit < 1:
            raise TypeError(f"'max_tokens': it is {limit!r}, not a number of tokens")
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder / EXPORT} is damaged at {error}; export the run again") from error
    tokenizer = load_tokenizer(str(folder))
    backbone = BigRec(tokenizer, words, max_prompt_tokens=limit)
    items = _read_items(folder / ITEMS)
    catalog = build_catalog(
        items,
        backbone.encode_answers,
        unescape=unescape,
        encode=partial(load_or_encode, tokenizer=tokenizer),
    )
    model = load_model(str(folder), dtype=dtype, device=device, tokenizer=tokenizer)
    use_tree_attention(model, device)
    names = ("run", "method", "dataset", "base_model", "base_model_kind")
    facts = {name: about.get(name) for name in names}
    facts |= {"items": len(catalog.title_of_item), "titles": len(catalog)}
    return _recommender(model, Opened(backbone, catalog, items, decoding, unescape, facts))


def read_export(folder: Storage) -> dict[str, Any]:
    """The content of an export's `bearray.json`.

    Raises:
        DataError: it is damaged, or of a later format.
    """
    about = folder.read_json(EXPORT)
    known = isinstance(about, dict) and about.get("format")
    if known != FORMAT:
        raise DataError(
            f"{folder.root}/{EXPORT} is of format {known!r}; this version of bearray reads format {FORMAT}"
        )
    return dict(about)


def _read_items(file: Path) -> pd.DataFrame:
    system, path = locate(file)
    try:
        item_ids, titles = read_items(read_parquet(system, path), str(file))
        if None in titles:
            raise DataError(f"{file} has an item without a title: {item_ids[titles.index(None)]}")
    except (DataError, MissingFileError) as error:
        raise type(error)(f"{error}; export the run again") from error
    return pd.DataFrame({"item_id": item_ids, "title": titles})


def _recommender(model: torch.nn.Module, opened: Opened) -> Recommender:
    notes = []
    if opened.decoding.method not in ("beam", "exact"):
        notes.append(f"the run decoded by {opened.decoding.method}; these lists are by plain beam search")
    if opened.about.get("base_model_kind") == "local stand-in":
        notes.append("the base model is a small stand-in, not a pre-trained model")
    return Recommender(
        model,
        opened.catalog,
        opened.backbone,
        opened.decoding,
        unescape=opened.unescape,
        about=opened.about | {"notes": notes},
    )
