"""The windows of an epoch, and the answers beside their targets: made at each step, or once and kept."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch

from bearray.batching import Answer
from bearray.negatives import KeptAnswers, OtherAnswers
from bearray.objectives import Draw, Round
from bearray.training.engine import Engine
from bearray.training.sums import summed


class RoundWindows:
    """What the round under way trains on.

    Args:
        others: makes answers, where the objective wants any.
        engine: gathers the weights that making them needs.
        windows: of the training split.
        seed: of the run.
        rank, world: this worker's number, and how many there are.
        device: of the model.
    """

    def __init__(
        self,
        others: OtherAnswers | None,
        engine: Engine,
        *,
        windows: int,
        seed: int,
        rank: int,
        world: int,
        device: torch.device,
    ) -> None:
        self.others, self.engine, self.windows, self.seed = others, engine, windows, seed
        self.rank, self.world, self.device = rank, world, device
        self.kept: KeptAnswers | None = None
        """The windows of the round's draw and their answers; None in rounds without a draw."""

    @property
    def rows(self) -> np.ndarray:
        """[windows] int64 numbers of the round's windows."""
        return np.arange(self.windows) if self.kept is None else self.kept.rows

    def begin(self, draw: Draw | None, step: int) -> None:
        """Take up the windows of a round whose draw is not the last round's; a collective.

        Args:
            draw: of the round.
            step: its first one.
        """
        self.kept = None if draw is None else self._made(draw, step)

    def answers(self, round: Round, rows: Sequence[int], step: int) -> list[list[Answer]] | None:
        """The answers that the round's loss wants beside the targets of some of its windows; None: none."""
        if self.others is None or round.loss.negatives is None:
            return None
        if self.kept is not None:
            return self.others.answers(self.kept.drawn(rows))
        with self.engine.gathered() if self.others.uses_model else nullcontext():
            return self.others(rows, step)

    def _made(self, draw: Draw, step: int) -> KeptAnswers:
        """The windows of a draw and their answers, each worker making its share of them."""
        rows = draw.rows(self.windows, seed=self.seed)
        if self.others is None:
            return KeptAnswers.of(rows, [[] for _ in rows], width=0)
        share = rows[self.rank :: self.world]
        with self.engine.gathered() if self.others.uses_model else nullcontext():
            drawn = self.others.draw([int(r) for r in share], step)
        merged = {}
        for name, part in KeptAnswers.of(share, drawn, width=self.others.count).tensors().items():
            whole = part.new_zeros(len(rows), *part.shape[1:])
            whole[self.rank :: self.world] = part
            merged[name] = summed(whole.to(self.device), self.world).cpu()
        return KeptAnswers.from_tensors(merged)
