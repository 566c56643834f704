"""Stage 1 of A-LLMRec, trained once for the same data, SASRec and texts, and kept in the user's cache.

Losses are in `bearray.backbones.alignment`. Adam with rate 1e-4 and betas (0.9, 0.98), batches of 32 windows,
as published.

Axis letters: T titles, D width of SASRec, H width of the text vectors, W windows.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from bearray.array_files import read_arrays, write_arrays
from bearray.backbones.alignment import SPACE, Alignment, standardised
from bearray.baselines.base import seeded
from bearray.baselines.cache import default_cache_dir
from bearray.baselines.data import BaselineData
from bearray.baselines.progress import epoch_progress
from bearray.baselines.sasrec import SASRec
from bearray.errors import BearrayError, ConfigError, StorageError

RECIPE = 1
"""Version of all that decides on the vectors; part of the cache key."""
BATCH, LR, BETAS = 32, 1e-4, (0.9, 0.98)
FILE = "items.safetensors"
_KIND, _VERSION = "aligned items", 1
_log = logging.getLogger(__name__)


def load_or_align(
    key: list[object],
    sasrec: SASRec,
    texts: Callable[[], Tensor],
    data: Callable[[], BaselineData],
    *,
    epochs: int,
    seed: int,
    cache_dir: Path | None = None,
    title: str | None = None,
) -> Tensor:
    """Load aligned vectors of items, or train them first. Several processes may ask at once.

    Args:
        key: JSON values that say what SASRec, texts and data are.
        sasrec: trained, on the device where stage 1 is to be trained.
        texts: makes the vectors of the titles' texts, [T, H], where they are needed.
        data: makes the windows, where they are needed.
        epochs: passes over the training windows.
        seed: of weights, order and negatives.
        cache_dir: default: beside the trained baselines.
        title: of the progress bar; None: no bar.

    Returns:
        [T, 128] float32 on the CPU.

    Raises:
        ConfigError: the loss is no longer a finite number.
        StorageError: the cache cannot be written.
    """
    weights = hashlib.sha256(b"".join(p.detach().cpu().numpy().tobytes() for p in sasrec.parameters()))
    content = json.dumps([RECIPE, weights.hexdigest(), epochs, seed, *key], sort_keys=True)
    name = f"allmrec-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    cache = cache_dir or default_cache_dir()
    file = cache / name / FILE

    def load() -> Tensor | None:
        if not file.is_file():
            return None
        try:
            found = read_arrays(file, kind=_KIND, version=_VERSION)[0]["items"].clone()
            return found if found.shape == (len(sasrec.items), SPACE) else None
        except (BearrayError, KeyError) as error:
            _log.warning("kept vectors cannot be used and are trained anew: %s", error)
            return None

    found = load()
    if found is not None:
        return found
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{name}.lock"):
            found = load()  # another process may have trained it while this one waited
            if found is None:
                found = align(sasrec, texts(), data(), epochs=epochs, seed=seed, title=title).cpu()
                write_arrays(file, {"items": found}, kind=_KIND, version=_VERSION, facts={})
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"aligned vectors cannot be kept under {cache}: {error}") from error
    return found


def align(
    sasrec: SASRec, texts: Tensor, data: BaselineData, *, epochs: int, seed: int, title: str | None = None
) -> Tensor:
    """Train stage 1 where SASRec is; [T, 128]. Arguments and errors as `load_or_align`."""
    device = sasrec.items.device
    items = sasrec.items.detach().float()
    texts = standardised(texts).to(device)
    with seeded(seed):
        model = Alignment(items.shape[1], texts.shape[1])
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, betas=BETAS)
    with epoch_progress(title, epochs) as show:
        for epoch in range(epochs):
            rng = np.random.default_rng([seed, epoch])
            order = rng.permutation(len(data.train))
            total = 0.0
            for start in range(0, len(order), BATCH):
                batch = data.batch(order[start : start + BATCH], rng, device)
                with torch.no_grad():
                    users = sasrec.hidden(batch.titles[:, :-1])[:, -1]
                right, wrong = batch.titles[:, -1], batch.draw_unseen(1)[:, 0]
                loss = model.loss(users, (items[right], texts[right]), (items[wrong], texts[wrong]))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += float(loss.detach()) * len(users)
            mean = total / max(1, len(order))
            if not math.isfinite(mean):
                raise ConfigError(f"the loss of stage 1 of A-LLMRec is {mean} in epoch {epoch + 1}")
            show(epoch + 1, f"loss {mean:.4f}")
    with torch.no_grad():
        return model.aligned(items)
