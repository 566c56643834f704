"""Other answers that were made once and are used for a while, also across a restart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bearray.negatives.drawn import Drawn

_NONE = -1
"""In the place of an answer that a window does not have."""


@dataclass(frozen=True, eq=False)
class KeptAnswers:
    """The windows of a draw and the answers beside their targets, C of the window that has most."""

    rows: np.ndarray
    """[W] int64 numbers of the windows, ascending."""
    titles: np.ndarray
    """[W, C] int64 titles (`Catalog` index), -1 behind a window's last."""
    scores: np.ndarray
    """[W, C] float32 log-probabilities under which they were decoded."""

    @classmethod
    def of(cls, rows: np.ndarray, drawn: Sequence[Sequence[Drawn]], *, width: int) -> KeptAnswers:
        """From what a supplier returned for the windows, at most `width` answers each."""
        titles = np.full((len(rows), width), _NONE, dtype=np.int64)
        scores = np.zeros((len(rows), width), dtype=np.float32)
        for r, own in enumerate(drawn):
            titles[r, : len(own)] = [d.title for d in own]
            scores[r, : len(own)] = [d.score for d in own]
        return cls(np.asarray(rows, dtype=np.int64), titles, scores)

    def drawn(self, rows: Sequence[int]) -> list[list[Drawn]]:
        """The answers of some of the windows, by number.

        Raises:
            ValueError: a window that is not among them.
        """
        places = np.searchsorted(self.rows, rows)
        if len(self.rows) == 0 or not np.array_equal(self.rows[places.clip(max=len(self.rows) - 1)], rows):
            raise ValueError(f"no answers are kept for some of the windows {list(rows)}")
        found = zip(self.titles[places].tolist(), self.scores[places].tolist(), strict=True)
        return [
            [Drawn(t, s) for t, s in zip(titles, scores, strict=True) if t != _NONE]
            for titles, scores in found
        ]

    def tensors(self) -> dict[str, torch.Tensor]:
        """By name, for a safetensors file."""
        return {name: torch.from_numpy(getattr(self, name)) for name in ("rows", "titles", "scores")}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> KeptAnswers:
        """The inverse of `tensors`."""
        return cls(**{name: tensors[name].numpy() for name in ("rows", "titles", "scores")})
