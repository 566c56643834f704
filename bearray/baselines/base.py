"""What a baseline is to the training loop, the cache and the evaluation: a loss, and scores of titles.

Axis letters: U users, W windows, L places of a history, T titles, K places of a list.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from bearray.baselines.data import PAD, Inputs, TrainBatch

_AT_A_TIME = 16_000_000
"""Scores computed at a time; 64 MB."""


class Baseline(nn.Module, ABC):
    """A recommender that knows titles by number only."""

    name: ClassVar[str]
    """As on the command line."""
    source: ClassVar[str]
    """Where it was published."""

    @classmethod
    @abstractmethod
    def build(cls, inputs: Inputs, config: Any) -> Baseline:
        """The untrained model, the same for equal inputs and settings.

        Args:
            inputs: the data and, for those that need it, what a language model has said about it.
            config: its settings; `config.train.seed` decides on the initial weights.
        """

    @abstractmethod
    def loss(self, batch: TrainBatch) -> tuple[Tensor, Tensor]:
        """The loss of some training windows.

        Returns:
            (sum, what it is to be divided by), so that batches and workers can be added up.
        """

    @abstractmethod
    def forward(self, histories: Tensor) -> Tensor:
        """Logits of the next title: [U, L] title ids, `PAD` on the left -> [U, T]."""


@torch.no_grad()
def score_titles(
    model: Baseline, histories: Tensor, num_titles: int, *, exclude_history: bool = False
) -> Iterator[Tensor]:
    """[U, T] logits in evaluation mode, some users at a time, on the model's device.

    With `exclude_history` a title of the user's history has -inf.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        for part in histories.split(max(1, _AT_A_TIME // num_titles)):
            logits = model(part.to(device))
            if exclude_history:
                user, place = (part != PAD).nonzero(as_tuple=True)
                logits[user.to(device), part[user, place].to(device)] = -torch.inf
            yield logits
    finally:
        model.train(training)


def top_titles(
    model: Baseline, histories: Tensor, num_titles: int, k: int = 10, *, exclude_history: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The K titles of highest score in the whole catalogue.

    Titles of the history stay in unless `exclude_history` says so: an LLM recommender may return them,
    too.

    Returns:
        Title ids [U, K] int64 and scores [U, K] float32, best first; -1 and -inf where there are no more.
    """
    titles = np.full((len(histories), k), -1, dtype=np.int64)
    scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
    have, row = min(k, num_titles), 0
    for part in score_titles(model, histories, num_titles, exclude_history=exclude_history):
        best = part.float().topk(have, dim=1)
        rows = slice(row, row + len(part))
        scores[rows, :have] = best.values.cpu().numpy()
        titles[rows, :have] = best.indices.masked_fill(best.values == -torch.inf, -1).cpu().numpy()
        row += len(part)
    return titles, scores


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """PyTorch's random numbers from `seed` inside the block; outside, as if the block had not been."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
