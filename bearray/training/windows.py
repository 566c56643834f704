"""The windows of an epoch, and the answers beside their targets: made at each step, or once and kept.

Answers that the model itself finds can fail on one worker only, where it meets a NaN. Workers tell each
other, so that none goes on alone into a collective.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bearray.batching import Answer
from bearray.errors import NaNError
from bearray.negatives import KeptAnswers, OtherAnswers
from bearray.negatives.drawn import Drawn
from bearray.objectives import Draw, Round
from bearray.training.engine import Engine
from bearray.training.sums import summed

BLAMED = 100
"""A worker names at most so many windows whose answers cannot be made; a draw may hold the whole split."""


class NoAnswersError(Exception):
    """The model's scores are NaN where it is to find answers, on some worker; raised on all of them.

    Attributes:
        rows: windows of this worker that it happens in.
    """

    def __init__(self, rows: list[int]) -> None:
        super().__init__(f"no answers can be found for windows {rows}")
        self.rows = rows


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

        Raises:
            NoAnswersError: on every worker.
        """
        self.kept = None if draw is None else self._made(draw, step)

    def answers(
        self, round: Round, parts: Sequence[np.ndarray], step: int
    ) -> list[list[list[Answer]] | None]:
        """The answers that the round's loss wants beside the targets of each micro-batch; None: none.

        All are made at once, by the same model. A collective, each worker for its own windows.

        Args:
            round: the one under way.
            parts: [windows] int64 numbers of each micro-batch's windows.
            step: of the run.

        Raises:
            NoAnswersError: on every worker.
        """
        if self.others is None or round.loss.negatives is None:
            return [None] * len(parts)
        rows = [int(row) for part in parts for row in part]
        kept = self.kept
        drawn = self._drawn(self.others, rows, step) if kept is None else kept.drawn(rows)
        flat = iter(self.others.answers(drawn))
        return [[next(flat) for _ in part] for part in parts]

    def _drawn(self, others: OtherAnswers, rows: Sequence[int], step: int) -> list[list[Drawn]]:
        """New answers for windows; a collective where the model makes them."""
        if not others.uses_model:
            return others.draw(rows, step)
        with self.engine.gathered():
            try:
                drawn = others.draw(rows, step)
            except NaNError:
                drawn = None
            failed = torch.tensor(float(drawn is None), device=self.device)
            if float(summed(failed, self.world)) == 0 and drawn is not None:
                return drawn
            raise NoAnswersError([] if drawn is not None else _to_blame(others, rows, step))

    def _made(self, draw: Draw, step: int) -> KeptAnswers:
        """The windows of a draw and their answers, each worker making its share of them."""
        rows = draw.rows(self.windows, seed=self.seed)
        if self.others is None:
            return KeptAnswers.of(rows, [[] for _ in rows], width=0)
        share = rows[self.rank :: self.world]
        drawn = self._drawn(self.others, [int(r) for r in share], step)
        merged = {}
        for name, part in KeptAnswers.of(share, drawn, width=self.others.count).tensors().items():
            whole = part.new_zeros(len(rows), *part.shape[1:])
            whole[self.rank :: self.world] = part
            merged[name] = summed(whole.to(self.device), self.world).cpu()
        return KeptAnswers.from_tensors(merged)


def _to_blame(others: OtherAnswers, rows: Sequence[int], step: int) -> list[int]:
    """Windows whose answers cannot be made alone either, `BLAMED` of them at most; found by halving, because
    a draw has many windows and a cause may lie in few."""
    found: list[int] = []
    parts = [list(rows)]
    while parts and len(found) < BLAMED:
        part = parts.pop()
        try:
            others.draw(part, step)
        except NaNError:
            if len(part) == 1:
                found += part
            else:
                parts += [part[len(part) // 2 :], part[: len(part) // 2]]
    return found
