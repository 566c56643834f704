"""Trained baselines, kept in the user's cache: once for the same data, titles and settings.

Evaluation actors and training workers of a machine ask for the same model; the first one trains it, the
others wait and load it. A training that was interrupted is continued by whoever asks next. The folders may be
deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock
from torch import Tensor

from bearray.array_files import read_arrays, write_arrays
from bearray.baselines.base import Baseline, score_titles
from bearray.baselines.data import PAD, Inputs, pad_titles
from bearray.baselines.train import Fit, History, fit
from bearray.config import to_dict
from bearray.errors import BearrayError, DataError, ResumeError, StorageError

RECIPE = 2
"""Version of everything in this package that changes weights; part of the cache key."""

CARD = "card.json"
WEIGHTS = "model.safetensors"
_KIND, _VERSION = "trained baseline", 1
_TRAINING = "training"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained baseline, in evaluation mode, and the numbers of the titles it was trained on."""

    model: Baseline
    title_of_item: Mapping[int, int]
    num_titles: int
    max_history: int
    folder: Path
    """Where it is kept: `CARD` and `WEIGHTS`."""
    best_epoch: int
    history: History
    """A row an epoch, see `bearray.baselines.train.History`."""

    def scores_for(
        self, windows: pd.DataFrame | Sequence[Sequence[int]], *, exclude_history: bool = False
    ) -> Tensor:
        """Logits of the target of each window.

        Args:
            windows: rows of a split (column item_ids), or lists of item ids; the history and, last, the
                target, which is not looked at.
            exclude_history: give titles of the history -inf. A user's own titles are never negatives in
                training, so they often have the highest scores.

        Returns:
            [U, titles] float32 on the CPU, over title ids. 4 bytes a score: 5,000 windows and 20,000 titles
            take 400 MB, so ask for the windows at hand.

        Raises:
            DataError: an item without a title id, or a window without a history.
        """
        lists = list(windows["item_ids"]) if isinstance(windows, pd.DataFrame) else windows
        return self.scores([items[:-1] for items in lists], exclude_history=exclude_history)

    def scores(self, histories: Sequence[Sequence[int]], *, exclude_history: bool = False) -> Tensor:
        """As `scores_for`, of histories without a target."""
        return self._score(pad_titles(histories, self.title_of_item, self.max_history), exclude_history)

    def title_scores(self, histories: Sequence[Sequence[int]], *, exclude_history: bool = False) -> Tensor:
        """As `scores`, of histories in title ids (`bearray.task.Case.history_titles`)."""
        known = {title: title for title in range(self.num_titles)}
        return self._score(pad_titles(histories, known, self.max_history), exclude_history)

    def _score(self, padded: Tensor, exclude_history: bool) -> Tensor:
        empty = (padded[:, -1] == PAD).nonzero()
        if len(empty):
            raise DataError(f"history {int(empty[0])} is empty; {self.model.name} needs at least one item")
        found = score_titles(self.model, padded, self.num_titles, exclude_history=exclude_history)
        parts = [part.float().cpu() for part in found]
        return torch.cat(parts) if parts else torch.empty(0, self.num_titles)


def default_cache_dir() -> Path:
    """Where trained baselines are kept: $BEARRAY_CACHE/baselines, else ~/.cache/bearray/baselines."""
    configured = os.environ.get("BEARRAY_CACHE")
    return (Path(configured) if configured else Path.home() / ".cache" / "bearray") / "baselines"


@dataclass(frozen=True, eq=False)
class Job:
    """A baseline to train: which, with what settings, on what."""

    kind: type[Baseline]
    settings: Any
    """The baseline's config."""
    inputs: Inputs

    @cached_property
    def key(self) -> str:
        """A hash of all that the weights depend on: data, titles, what a language model has said, settings,
        and this package's recipe."""
        titles = sorted((int(i), int(t)) for i, t in self.inputs.title_of_item.items())
        llm = self.inputs.llm.key if self.inputs.llm else None
        content = [
            RECIPE,
            self.kind.name,
            self.inputs.dataset.content_hash,
            titles,
            llm,
            to_dict(self.settings),
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def about(self) -> dict[str, Any]:
        """What a kept state and the finished model's card say of it."""
        return {"baseline": self.kind.name, "config": to_dict(self.settings), "key": self.key}

    def build(self) -> Baseline:
        """The untrained model."""
        return self.kind.build(self.inputs, self.settings)


Trainer = Callable[[Job, Path], tuple[Baseline, Fit]]
"""Trains a job and returns the model with the weights of its best epoch. The folder is on this machine and
may be used to keep the state in: what it holds is there again when an interrupted training is asked for once
more."""


def train_here(device: torch.device | str, *, progress: bool) -> Trainer:
    """Training in this process."""

    def trainer(job: Job, state: Path) -> tuple[Baseline, Fit]:
        model = job.build().to(device)
        title = f"{job.kind.name} on {job.inputs.dataset.name}" if progress else None
        data, settings = job.inputs.data, job.settings.train
        return model, fit(model, data, settings, folder=state, settings=job.about, title=title)

    return trainer


def load_or_train(
    job: Job,
    *,
    cache_dir: str | Path | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
    trainer: Trainer | None = None,
) -> Fitted:
    """Load a baseline, or train it first. Several processes may ask at once.

    Args:
        job: which, with what settings, on what; trained on the whole training split, stopped by validation.
        cache_dir: default: `default_cache_dir()`.
        device: where it is trained and stays; default: a GPU if there is one, else the CPU.
        progress: show the epochs on stderr.
        trainer: what trains it; default: this process.

    Raises:
        ConfigError: the training diverged.
        DataError: an item has no title id, or a user has seen every title.
        StorageError: the cache cannot be written.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    train = trainer or train_here(where, progress=progress)
    cache = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    name = job.kind.name
    folder = cache / f"{name}-{job.key[:16]}"

    def make() -> None:
        state = folder / _TRAINING
        state.mkdir(parents=True, exist_ok=True)
        try:
            model, result = train(job, state)
        except ResumeError as error:
            _log.warning("an interrupted training of %s is begun anew: %s", name, error)
            shutil.rmtree(state)
            state.mkdir(parents=True)
            model, result = train(job, state)
        weights = {n: value.detach() for n, value in model.state_dict().items()}
        facts = {"titles": job.inputs.num_titles}
        write_arrays(folder / WEIGHTS, weights, kind=_KIND, version=_VERSION, facts=facts)
        card = {
            **job.about,
            "source": model.source,
            "data": job.inputs.dataset.name,
            "titles": job.inputs.num_titles,
            "training_windows": len(job.inputs.dataset.train),
            "parameters": sum(p.numel() for p in model.parameters()),
            "best_epoch": result.best_epoch,
            "valid": result.valid,
            "history": result.history,
            "device": str(next(model.parameters()).device),
            "torch": torch.__version__,
        }
        part = folder / f"{CARD}.tmp"
        part.write_text(json.dumps(card, indent=2) + "\n")
        os.replace(part, folder / CARD)  # last: a folder with a card is complete
        shutil.rmtree(state)

    def load() -> Fitted | None:
        """None where there is nothing that can be used."""
        if not (folder / CARD).is_file():
            return None
        try:
            card = json.loads((folder / CARD).read_text())
            model = job.build()
            model.load_state_dict(read_arrays(folder / WEIGHTS, kind=_KIND, version=_VERSION)[0])
            about = (folder, int(card["best_epoch"]), card["history"])
        except (BearrayError, KeyError, RuntimeError, ValueError) as error:
            _log.warning("the kept %s cannot be used and is trained anew: %s", name, error)
            return None
        known = job.inputs
        return Fitted(
            model.to(where).eval(), known.title_of_item, known.num_titles, known.max_history, *about
        )

    found = load()
    if found is not None:
        return found
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{folder.name}.lock"):
            found = load()  # another process may have trained it while this one waited
            if found is None:
                make()
                found = load()
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"the trained {name} cannot be kept under {cache}: {error}") from error
    if found is None:
        raise StorageError(f"the trained {name} was written to {folder} but cannot be read back")
    return found
