"""Trained baselines, kept in the user's cache: once for the same data, titles and settings.

Evaluation actors and training workers of a machine ask for the same text-free model; the first one trains it,
the others wait and load it. A training that was interrupted is continued by whoever asks next. The folders
may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock
from torch import Tensor

from bearray.array_files import read_arrays, write_arrays
from bearray.baselines.base import Baseline, score_titles
from bearray.baselines.data import PAD, pad_titles, view
from bearray.baselines.train import Fit, History, fit
from bearray.config import BaselineTrainConfig, to_dict
from bearray.data import Dataset
from bearray.errors import BearrayError, DataError, ResumeError, StorageError

RECIPE = 1
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


def load_or_train(
    build: Callable[[int], Baseline],
    dataset: Dataset,
    title_of_item: Mapping[int, int],
    settings: Any,
    *,
    name: str,
    max_history: int,
    train: BaselineTrainConfig,
    cache_dir: str | Path | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Fitted:
    """Load a baseline, or train it first. Several processes may ask at once.

    Args:
        build: makes the untrained model for a number of titles.
        dataset: the opened data set; trained on its whole training split, stopped by its validation split.
        title_of_item: the title of each item, `Catalog.title_of_item` or `number_titles`.
        settings: the baseline's config, a dataclass.
        name: the baseline's name, part of the folder's.
        max_history: longest history that it reads.
        train: settings of the loop.
        cache_dir: default: `default_cache_dir()`.
        device: where it is trained and stays; default: a GPU if there is one, else the CPU.
        progress: show the epochs on stderr.

    Raises:
        ConfigError: the training diverged.
        DataError: an item has no title id, or a user has seen every title.
        StorageError: the cache cannot be written.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    cache = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    key = content_key(name, dataset, title_of_item, settings)
    folder = cache / f"{name}-{key[:16]}"
    num_titles = max(title_of_item.values()) + 1

    def make() -> None:
        data = view(dataset, title_of_item, max_history=max_history)
        about = {"baseline": name, "config": to_dict(settings), "key": key}
        title = f"{name} on {dataset.name}" if progress else None

        def train_in(state: Path) -> tuple[Baseline, Fit]:
            model = build(num_titles).to(where)
            return model, fit(model, data, train, folder=state, settings=about, title=title)

        try:
            model, result = train_in(folder / _TRAINING)
        except ResumeError as error:
            _log.warning("an interrupted training of %s is begun anew: %s", name, error)
            shutil.rmtree(folder / _TRAINING)
            model, result = train_in(folder / _TRAINING)
        weights = {n: value.detach() for n, value in model.state_dict().items()}
        write_arrays(folder / WEIGHTS, weights, kind=_KIND, version=_VERSION, facts={"titles": num_titles})
        card = {
            **about,
            "source": model.source,
            "data": dataset.name,
            "titles": num_titles,
            "training_windows": len(data.train),
            "parameters": sum(p.numel() for p in model.parameters()),
            "best_epoch": result.best_epoch,
            "valid": result.valid,
            "history": result.history,
            "device": str(where),
            "torch": torch.__version__,
        }
        part = folder / f"{CARD}.tmp"
        part.write_text(json.dumps(card, indent=2) + "\n")
        os.replace(part, folder / CARD)  # last: a folder with a card is complete
        shutil.rmtree(folder / _TRAINING)

    def load() -> Fitted | None:
        """None where there is nothing that can be used."""
        if not (folder / CARD).is_file():
            return None
        try:
            card = json.loads((folder / CARD).read_text())
            model = build(num_titles)
            model.load_state_dict(read_arrays(folder / WEIGHTS, kind=_KIND, version=_VERSION)[0])
            about = (folder, int(card["best_epoch"]), card["history"])
        except (BearrayError, KeyError, RuntimeError, ValueError) as error:
            _log.warning("the kept %s cannot be used and is trained anew: %s", name, error)
            return None
        return Fitted(model.to(where).eval(), title_of_item, num_titles, max_history, *about)

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


def content_key(name: str, dataset: Dataset, title_of_item: Mapping[int, int], settings: Any) -> str:
    """A hash of all that the weights depend on: data, titles, settings, and this package's recipe."""
    titles = sorted((int(i), int(t)) for i, t in title_of_item.items())
    content = [RECIPE, name, dataset.content_hash, titles, to_dict(settings)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
