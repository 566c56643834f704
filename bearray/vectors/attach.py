"""A model's input embedding replaced by one that reads soft tokens: new, or as a run has left it.

In a folder there are `projector.safetensors`, what was trained, and `vectors.safetensors`, what it projects.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bearray.backbones.base import Backbone
from bearray.backbones.soft import SoftEmbedding, SoftVectors, UserTable
from bearray.errors import DataError, MissingFileError, ModelError
from bearray.vectors.frozen import FrozenVectors

PROJECTOR = "projector.safetensors"


def attach_new(
    model: nn.Module, backbone: Backbone, vectors: SoftVectors | None, *, seed: int = 42
) -> SoftEmbedding:
    """Let a model read soft tokens through new projectors.

    Args:
        model: a causal LM, plain or with an adapter.
        backbone: which kinds there are, and their projectors.
        vectors: what is projected; None: nothing, all soft tokens are blank.
        seed: of the projectors' weights; the global random state stays as it was.

    Raises:
        ModelError: the model keeps its input embedding where `transformers` cannot replace it.
    """
    lm: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    base = lm.get_input_embeddings()
    projectors = {}
    if vectors is not None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            projectors = backbone.projectors(vectors.widths(), base.weight.shape[1])
    soft = SoftEmbedding(base, projectors, vectors).to(base.weight.device)
    try:
        lm.set_input_embeddings(soft)
    except NotImplementedError as error:
        raise ModelError(f"{type(lm).__name__} does not let its input embedding be replaced") from error
    return soft


def attach_saved(model: nn.Module, backbone: Backbone, folder: Path) -> SoftEmbedding:
    """Let a model read soft tokens as a saved run did.

    Args:
        model, backbone: as `attach_new`.
        folder: as `save_soft` has left it.

    Raises:
        ModelError: a file is missing or damaged, or of another backbone, base model or data set.
    """
    vectors = _read(folder, backbone.users)
    missing = [kind for kind in backbone.soft_kinds if kind not in vectors.widths()]
    if missing:
        raise ModelError(f"{folder} has no vectors of kind {', '.join(missing)}, which {backbone.name} needs")
    _check_titles(folder, vectors, backbone.num_titles)
    soft = attach_new(model, backbone, vectors)
    _load_projectors(soft, folder)
    return soft


def save_soft(soft: SoftEmbedding, folder: Path) -> None:
    """Write projectors and vectors; weights must be whole on this worker."""
    assert soft.vectors is not None
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: p.detach().cpu().contiguous() for name, p in soft.trained().items()}
    save_file(weights, folder / PROJECTOR)
    soft.vectors.save(folder)


def load_soft(soft: SoftEmbedding, folder: Path) -> None:
    """Put saved projectors and vectors into a model that has some already; weights must be whole on this
    worker.

    Raises:
        ModelError: a file is missing or damaged, or of another backbone, base model or data set.
    """
    own = soft.vectors
    assert isinstance(own, FrozenVectors)
    vectors = _read(folder, own.users)
    if vectors.widths() != own.widths():
        raise ModelError(f"{folder} has vectors of {vectors.widths()}, this run needs {own.widths()}")
    _check_titles(folder, vectors, len(own.items))
    _load_projectors(soft, folder)
    soft.vectors = vectors


def _read(folder: Path, users: UserTable) -> FrozenVectors:
    try:
        return FrozenVectors.read(folder, users)
    except (DataError, MissingFileError) as error:
        raise ModelError(f"the vectors of soft tokens cannot be used: {error}") from error


def _check_titles(folder: Path, vectors: FrozenVectors, titles: int) -> None:
    if len(vectors.items) != titles:
        raise ModelError(
            f"{folder} has vectors of {len(vectors.items)} titles, the catalogue has {titles}; a projector "
            "can only be used with the data set it was trained on"
        )


@torch.no_grad()
def _load_projectors(soft: SoftEmbedding, folder: Path) -> None:
    file = folder / PROJECTOR
    try:
        if not file.is_file():  # opening a pipe would wait for ever
            raise FileNotFoundError("there is no such file")
        saved = load_file(file)
    except Exception as error:  # safetensors raises several kinds
        raise ModelError(f"{file} cannot be read: {error}") from error
    weights = soft.trained()
    here = {name: list(value.shape) for name, value in weights.items()}
    there = {name: list(value.shape) for name, value in saved.items()}
    if here != there:
        raise ModelError(
            f"{file} does not fit this model: it has {_words(there)}, this run needs {_words(here)}; "
            "backbone, base model and SASRec must be those it was trained with"
        )
    for name, parameter in weights.items():
        if not saved[name].float().isfinite().all():
            raise ModelError(f"{file} is damaged: {name} has a value that is not a finite number")
        parameter.copy_(saved[name])


def _words(shapes: dict[str, list[int]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in sorted(shapes.items())) or "nothing"
