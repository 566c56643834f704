"""The error that all workers raise when a run cannot go on: its loss is no longer a finite number, or the
model cannot make the answers that the loss needs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch.distributed as dist

from bearray.batching import TokenBatch
from bearray.objectives import Objective
from bearray.step import TrainStep
from bearray.task import Task
from bearray.training.culprits import Culprits, broken_weights, examine
from bearray.training.diverged import DivergedError, What
from bearray.training.engine import Engine
from bearray.training.sums import StepSums
from bearray.training.timeline import Timeline
from bearray.training.windows import NoAnswersError

_ANSWERS: dict[str, What] = {"rollout": "rollouts", "sample": "samples"}
"""What a report calls answers that the model makes, by `NegativeSpec.kind`; all others are negatives."""


class Divergence:
    """Finds out on every worker why the run cannot go on, and makes one error of it, the same on each.

    Args:
        objective: of the run.
        task: its data set.
        module: the training step.
        engine: gathers the weights that are looked at.
        timeline: tells a step's epoch.
        world: how many workers there are.
    """

    def __init__(
        self,
        objective: Objective,
        task: Task,
        module: TrainStep,
        engine: Engine,
        timeline: Timeline,
        *,
        world: int,
    ) -> None:
        self.objective, self.task, self.module = objective, task, module
        self.engine, self.timeline, self.world = engine, timeline, world

    def of_step(
        self,
        step: int,
        batch: np.ndarray,
        lr: float,
        sums: StepSums,
        windows: Iterable[tuple[int, TokenBatch]],
    ) -> DivergedError:
        """What is to be raised where the loss, or the gradient alone, is not finite; a collective.

        Args:
            step: that was not taken.
            batch: the windows of the global batch.
            lr: the learning rate that the step would have had.
            sums: its loss and metrics.
            windows: (row, batch of this window alone) of this worker.
        """
        what: What = "gradient" if sums.finite else "loss"
        with self.engine.gathered():
            own = examine(self.module, windows, what)
        metrics = {name: value for name, value in sums.metrics.items() if value is not None}
        return self._error(step, batch, lr, own, what, sums.loss, metrics)

    def of_answers(self, step: int, batch: np.ndarray, lr: float, error: NoAnswersError) -> DivergedError:
        """What is to be raised where answers for windows of `batch` cannot be made; a collective.

        Args:
            step, batch, lr: as `of_step`; `batch` may be a round's draw.
            error: on this worker.
        """
        assert self.objective.negatives is not None
        what = _ANSWERS.get(self.objective.negatives.kind, "negatives")
        with self.engine.gathered():
            own = Culprits(weights=broken_weights(self.module), windows=[(r, 0, what) for r in error.rows])
        return self._error(step, batch, lr, own, what, math.nan, {})

    def _error(
        self,
        step: int,
        batch: np.ndarray,
        lr: float,
        own: Culprits,
        what: What,
        value: float,
        metrics: dict[str, float],
    ) -> DivergedError:
        """The report of all workers, each of which has found `own`."""
        found: list[Any] = [own] * self.world
        if self.world > 1:
            dist.all_gather_object(found, own)
        windows = sorted(w for each in found for w in each.windows)
        weights = sorted({name for each in found for name in each.weights})
        gradients = sorted({name for each in found for name in each.gradients})
        if weights:
            term = "weights"
        elif windows:
            term = min((place, name) for _, place, name in windows)[1]
        else:  # in none of the windows alone: they are too many, or dropout was another
            term = next((name for name, v in metrics.items() if not math.isfinite(v)), what)
        user_ids = self.task.windows("train")["user_id"].to_numpy()
        users = {int(row): int(user_ids[row]) for row in sorted(batch)}
        report = {
            "objective": self.objective.name,
            "what": what,
            "value": _json(value),
            "step": step,
            "epoch": self.timeline.epochs_done(step - 1) if step else 0.0,
            "lr": lr,
            "term": term,
            "windows": [{"row": row, "user": users[row], "term": name} for row, _, name in windows],
            "weights": weights or gradients,
            "metrics": {name: _json(v) for name, v in metrics.items()},
            "batch": {"rows": list(users), "users": list(users.values())},
            "saved": None,
        }
        return DivergedError.of(report)


def _json(value: float) -> float | str:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else str(value)
