"""The training loop of every baseline: epochs, validation after each, stop when it no longer improves.

Plain PyTorch; a notebook calls `fit`, and so does each worker of Ray Train (`bearray.training.baseline`),
which then share every batch. Order, negatives and dropout of an epoch depend on seed, epoch and worker alone,
so a training that was interrupted continues after its last whole epoch as if it had not been (bit for bit on
a CPU).
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bearray.array_files import read_arrays, write_arrays
from bearray.baselines.base import Baseline, seeded, top_titles
from bearray.baselines.data import BaselineData, TitleWindows
from bearray.baselines.progress import epoch_progress
from bearray.baselines.team import ALONE, Team
from bearray.config import BaselineTrainConfig, differences, to_dict
from bearray.errors import BearrayError, ConfigError, DataError, ResumeError
from bearray.metrics import hit_ratio, ndcg, rank_of_target

History = list[dict[str, float]]
"""A row an epoch: epoch (from 1), loss, the metrics of `validate` as valid_NAME, seconds, valid_seconds."""

_KS = (1, 5, 10)
_CHOSEN_BY = "valid_ndcg@10"
_COLUMNS = (
    "epoch", "loss", *(f"valid_{m}@{k}" for m in ("hr", "ndcg") for k in _KS), "seconds", "valid_seconds",
)  # fmt: skip
_STATE, _SETTINGS = "training.safetensors", "training.json"
_KIND, _VERSION = "baseline training", 1


@dataclass(frozen=True)
class Fit:
    """How a training ended."""

    history: History
    best_epoch: int
    """The first epoch with the highest validation NDCG@10; the model has its weights."""

    @property
    def valid(self) -> dict[str, float]:
        """Validation metrics of the best epoch."""
        row = self.history[self.best_epoch - 1]
        return {n.removeprefix("valid_"): v for n, v in row.items() if n.startswith("valid_") and "@" in n}


def fit(
    model: Baseline,
    data: BaselineData,
    config: BaselineTrainConfig,
    *,
    folder: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    on_epoch: Callable[[History], None] | None = None,
    title: str | None = None,
    team: Team = ALONE,
) -> Fit:
    """Train a baseline where it stands (its device), and leave it with the weights of its best epoch.

    Args:
        model: the baseline, new.
        data: what it is trained and validated on.
        config: the loop's settings.
        folder: where the state is kept after each epoch, and continued from; None: nowhere.
        settings: all else that the state depends on, as plain JSON values: the model's settings, the data's
            hash. A folder with others is refused.
        on_epoch: called with the history after each epoch, when its state has been kept.
        title: what the progress bar is called; None: no bar.
        team: the workers that train it together; a collective then, and the first one keeps the state.

    Raises:
        ConfigError: the loss is no longer a finite number.
        ResumeError: `folder` holds a training with other settings, or is damaged.
        StorageError: `folder` cannot be written.
    """
    with _one_thread():
        return _fit(model, data, config, folder, settings, on_epoch, title, team)


def _fit(
    model: Baseline,
    data: BaselineData,
    config: BaselineTrainConfig,
    folder: str | Path | None,
    settings: Mapping[str, Any] | None,
    on_epoch: Callable[[History], None] | None,
    title: str | None,
    team: Team,
) -> Fit:
    device = next(model.parameters()).device
    optimizer = torch.optim.Adam(
        model.parameters(), lr=config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay
    )
    best = _copy(model)
    history: History = []
    state = None
    if folder is not None:
        state = _State(Path(folder), {"train": to_dict(config), **(settings or {})})
        history, best = state.restore(model, optimizer, best)
    with epoch_progress(title, config.epochs, len(history)) as show:
        while not _ended(history, config):
            epoch = len(history) + 1
            began = time.perf_counter()
            loss = _train_epoch(model, data, config, optimizer, epoch, device, team)
            trained = time.perf_counter()
            metrics = validate(model, data.valid, data.num_titles, team)
            ended = time.perf_counter()
            row = {"epoch": float(epoch), "loss": loss, "seconds": trained - began}
            row |= {f"valid_{name}": value for name, value in metrics.items()}
            history.append(row | {"valid_seconds": ended - trained})
            if best_epoch(history) == epoch:
                best = _copy(model)
            if state is not None and team.rank == 0:
                state.save(model, optimizer, best, history)
            if on_epoch is not None:
                on_epoch(history)
            show(epoch, f"loss {loss:.4f}, NDCG@10 {metrics['ndcg@10']:.4f} (best {best_epoch(history)})")
    model.load_state_dict(best)
    return Fit(history, best_epoch(history))


def best_epoch(history: History) -> int:
    """The first epoch, from 1, with the highest validation NDCG@10; 0 before the first."""
    return int(np.argmax([row[_CHOSEN_BY] for row in history])) + 1 if history else 0


def validate(model: Baseline, windows: TitleWindows, num_titles: int, team: Team = ALONE) -> dict[str, float]:
    """hr@1, hr@5, hr@10, ndcg@1, ndcg@5, ndcg@10 over the whole catalogue; each worker ranks a part."""
    own = slice(team.rank, None, team.world)
    titles, _ = top_titles(model, windows.histories[own], num_titles, max(_KS))
    places = torch.zeros(len(windows), dtype=torch.float64)
    places[own] = torch.from_numpy(rank_of_target(titles, windows.targets[own].numpy()))
    ranks = team.add(places.to(next(model.parameters()).device)).cpu().numpy()
    return {f"{n}@{k}": of(ranks, k) for n, of in (("hr", hit_ratio), ("ndcg", ndcg)) for k in _KS}


def _ended(history: History, config: BaselineTrainConfig) -> bool:
    since = len(history) - best_epoch(history)
    return len(history) >= config.epochs or (config.patience is not None and since >= config.patience)


def _train_epoch(
    model: Baseline,
    data: BaselineData,
    config: BaselineTrainConfig,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    device: torch.device,
    team: Team = ALONE,
) -> float:
    """One pass over the training windows; the mean loss."""
    rng = np.random.default_rng([config.seed, epoch])
    order = rng.permutation(len(data.train))
    if team.rank:
        rng = np.random.default_rng([config.seed, epoch, team.rank])
    total = torch.zeros(2, dtype=torch.float64, device=device)
    model.train()
    with seeded(int(rng.integers(2**63)), device):
        for start in range(0, len(order), config.batch_size):
            rows = order[start : start + config.batch_size][team.rank :: team.world]
            batch = data.batch(rows, rng, device)
            loss, weight = model.loss(batch)
            sums = team.add(torch.stack([loss.detach().double(), weight.double()]))
            optimizer.zero_grad()
            (loss / sums[1].clamp(min=1)).backward()
            team.add_gradients(model)
            optimizer.step()
            total += sums
    mean = float(total[0] / total[1].clamp(min=1))
    if not math.isfinite(mean):
        raise ConfigError(f"the loss is {mean} in epoch {epoch} with train.lr {config.lr:g}; lower train.lr")
    return mean


@contextmanager
def _one_thread() -> Iterator[None]:
    """More threads hardly help tensors this small, and another number of them gives other last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _copy(model: Baseline) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


class _State:
    """A training on disk: its settings as JSON, and weights, optimiser and history in one safetensors file,
    which is replaced whole, so that they always belong to the same epoch."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.file = folder / _STATE
        self.settings = folder / _SETTINGS
        new = json.loads(json.dumps(settings))
        if not self.settings.exists():
            folder.mkdir(parents=True, exist_ok=True)
            part = self.settings.with_suffix(f".{os.getpid()}.tmp")
            part.write_text(json.dumps(new, indent=2) + "\n")
            os.replace(part, self.settings)
            return
        try:
            old = json.loads(self.settings.read_text())
        except ValueError as error:
            raise ResumeError(f"{self.settings} is damaged: {error}; delete {folder}") from error
        changed = differences(old, new)
        if changed:
            raise ResumeError(f"{folder} holds a training with other settings: {'; '.join(changed)}")

    def save(
        self,
        model: Baseline,
        optimizer: torch.optim.Optimizer,
        best: Mapping[str, Tensor],
        history: History,
    ) -> None:
        arrays = {f"model.{name}": value.detach() for name, value in model.state_dict().items()}
        arrays |= {f"best.{name}": value for name, value in best.items()}
        for number, values in optimizer.state_dict()["state"].items():
            arrays |= {f"adam.{number}.{name}": value for name, value in values.items()}
        rows = torch.tensor([[row[c] for c in _COLUMNS] for row in history], dtype=torch.float64)
        arrays["history"] = rows
        write_arrays(self.file, arrays, kind=_KIND, version=_VERSION, facts={"epoch": len(history)})

    def restore(
        self, model: Baseline, optimizer: torch.optim.Optimizer, best: dict[str, Tensor]
    ) -> tuple[History, dict[str, Tensor]]:
        """Load what was saved, if anything; the history, and the weights of its best epoch."""
        if not self.file.exists():
            return [], best
        try:
            arrays, _ = read_arrays(self.file, kind=_KIND, version=_VERSION)
            model.load_state_dict(_below(arrays, "model."))
            adam: dict[int, dict[str, Tensor]] = {}
            for name, value in _below(arrays, "adam.").items():
                number, _, part = name.partition(".")
                adam.setdefault(int(number), {})[part] = value.clone()
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": adam, "param_groups": groups})
            rows = arrays["history"].tolist()
            found = {name: value.clone() for name, value in _below(arrays, "best.").items()}
        except (DataError, RuntimeError, KeyError, ValueError) as error:
            raise ResumeError(f"{self.file} cannot be continued: {error}; delete it to begin anew") from error
        return [dict(zip(_COLUMNS, row, strict=True)) for row in rows], found


def finished(model: Baseline, folder: str | Path) -> Fit:
    """How the training whose state is in `folder` ended; `model` gets the weights of its best epoch.

    Raises:
        ResumeError: there is no state, or a damaged one.
    """
    file = Path(folder) / _STATE
    try:
        arrays, _ = read_arrays(file, kind=_KIND, version=_VERSION)
        model.load_state_dict(_below(arrays, "best."))
        history: History = [dict(zip(_COLUMNS, row, strict=True)) for row in arrays["history"].tolist()]
    except (BearrayError, RuntimeError, KeyError, ValueError) as error:
        raise ResumeError(f"{file} holds no training's end: {error}") from error
    return Fit(history, best_epoch(history))


def _below(arrays: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
