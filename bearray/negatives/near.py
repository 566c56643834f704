"""Negatives that look like what the user had, or like the target: near in the base model's embeddings.

A title's vector is the mean of its tokens' input embeddings in the base model, minus the mean over titles,
because token embeddings share a direction that says nothing. It costs no forward pass. It knows words that
titles share, not what they mean in context: titles of one series are near, synonyms need not be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bearray.negatives.drawn import Drawn, stream

POOL = 20
"""Negatives are drawn uniformly from so many nearest titles, or from `count` if that is more: the single
nearest ones would be the same at every step."""


@torch.no_grad()
def title_embeddings(model: nn.Module, titles: Sequence[Sequence[int]]) -> Tensor:
    """Vectors of length 1, [titles, D] float32 on the model's device.

    Args:
        model: a causal LM whose input embeddings are whole on this worker.
        titles: tokens of each title.
    """
    lm: Any = model
    weight = lm.get_input_embeddings().weight
    lengths = torch.tensor([len(t) for t in titles], device=weight.device)
    tokens = torch.tensor([x for t in titles for x in t], device=weight.device)
    starts = lengths.cumsum(0) - lengths
    means = nn.functional.embedding_bag(tokens, weight, starts, mode="mean").float()
    return nn.functional.normalize(means - means.mean(0), dim=1)


class NearNegatives:
    """Titles near those of a window's history (to the sum of their vectors), or near its target's; never
    the target, and never one of the history where that is what they are near to.

    Args:
        targets: [W] each training window's target title.
        histories: [W] title ids of each window's history; None: near to the target.
        embeddings: [titles, D] of length 1.
        count: negatives of each window; with target and history, no more than there are titles.
        seed: of the run.
    """

    uses_model = False

    def __init__(
        self,
        targets: Sequence[int],
        histories: Sequence[Sequence[int]] | None,
        embeddings: Tensor,
        count: int,
        seed: int,
    ) -> None:
        self.targets, self.histories, self.embeddings = targets, histories, embeddings
        self.count, self.seed = count, seed

    def __call__(self, rows: Sequence[int], step: int) -> list[list[Drawn]]:
        """`count` negatives for each window."""
        if not rows:
            return []
        to = [self.histories[r] if self.histories is not None else [self.targets[r]] for r in rows]
        query = torch.stack([self.embeddings[list(titles)].sum(0) for titles in to])
        similar = query @ self.embeddings.T  # [rows, titles]
        for i, (row, titles) in enumerate(zip(rows, to, strict=True)):
            similar[i, [self.targets[row], *titles]] = -torch.inf
        pool = similar.topk(min(max(POOL, self.count), similar.shape[1]), dim=1)
        sizes = pool.values.isfinite().sum(1).tolist()
        return [
            [Drawn(near[i]) for i in self._places(row, step, size)]
            for row, near, size in zip(rows, pool.indices.tolist(), sizes, strict=True)
        ]

    def _places(self, row: int, step: int, size: int) -> list[int]:
        places = stream(self.seed, step, row).choice(size, size=self.count, replace=False)
        return sorted(int(place) for place in places)
