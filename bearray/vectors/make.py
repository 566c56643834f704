"""The vectors that a backbone's prompts need, made from the data set and the base model."""

from __future__ import annotations

import zlib
from typing import cast

import torch
from torch import nn

from bearray.backbones.base import Backbone
from bearray.baselines.data import view
from bearray.baselines.sasrec import SASRec, load_or_train_sasrec
from bearray.catalog import Catalog
from bearray.config import SoftTokenConfig
from bearray.data import Dataset
from bearray.vectors.aligned import load_or_align
from bearray.vectors.frozen import FrozenVectors
from bearray.vectors.texts import by_language_model, by_sentence_encoder

_SAMPLE = 1024
"""Numbers of each weight that tell one base model from another."""


def make_vectors(
    config: SoftTokenConfig,
    backbone: Backbone,
    dataset: Dataset,
    catalog: Catalog,
    model: nn.Module,
    *,
    progress: bool = True,
) -> FrozenVectors:
    """The frozen vectors, found in this machine's cache or trained when they are first asked for.

    Args:
        config: SASRec's settings, and those of stage 1.
        backbone: for whose prompts; `know` has been called.
        dataset, catalog: SASRec is trained on the whole training split, by titles.
        model: the base model, without an adapter, on its device.
        progress: show what is trained on stderr.

    Raises:
        ConfigError: a training diverged.
        DataError: a user has seen every title.
        ModelError: the sentence encoder cannot be opened.
        StorageError: the cache cannot be written.
    """
    fitted = load_or_train_sasrec(dataset, catalog.title_of_item, config.sasrec, progress=progress)
    sasrec = cast(SASRec, fitted.model)
    if "user" not in backbone.soft_kinds:
        return FrozenVectors(sasrec.items, backbone.users, config=config.sasrec)

    def texts() -> torch.Tensor:
        if config.text_encoder is not None:
            return by_sentence_encoder(config.text_encoder, catalog.titles, sasrec.items.device)
        return by_language_model(model, catalog.tokens)

    encoder = config.text_encoder or _fingerprint(model)
    items = load_or_align(
        [dataset.content_hash, encoder],
        sasrec,
        texts,
        lambda: view(dataset, catalog.title_of_item, max_history=config.sasrec.max_history),
        epochs=config.align_epochs,
        seed=config.sasrec.train.seed,
        title=f"stage 1 of A-LLMRec on {dataset.name}" if progress else None,
    )
    return FrozenVectors(items, backbone.users, sasrec, config.sasrec)


def _fingerprint(model: nn.Module) -> list[object]:
    """What tells a base model from others, also of equal shape: a checksum of some of each weight."""
    found = 0
    for name, weight in model.named_parameters():
        some = weight.detach().flatten()[:_SAMPLE].float().cpu().numpy()
        found = zlib.crc32(some.tobytes(), zlib.crc32(name.encode(), found))
    return [type(model).__name__, sum(p.numel() for p in model.parameters()), found]
