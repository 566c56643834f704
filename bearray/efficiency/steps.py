"""Training steps of several objectives on one model, as the training loop takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import nn

from bearray.backbones.lora import set_dropout
from bearray.batching import Example, plan_epoch
from bearray.config import RunConfig
from bearray.efficiency.variants import TimedObjective
from bearray.forward import causal_lm
from bearray.objectives import Round
from bearray.task import Task
from bearray.training.adam import trainable
from bearray.training.loop import Loop
from bearray.training.start import new_model


@dataclass(frozen=True)
class SharedTask(Task):
    """A task whose training windows are tokenised once for all loops."""

    @classmethod
    def of(cls, task: Task) -> SharedTask:
        return cls(task.config, task.dataset, task.backbone, task.catalog)

    @cached_property
    def _examples(self) -> list[Example]:
        return super().examples()

    def examples(self) -> list[Example]:
        return self._examples


class TrainingContenders:
    """Optimiser steps of each objective: everything that a training pays for, update included.

    All objectives share one model. Before each turn the adapter and the objective's own state are put back to
    where training starts, so that no turn is timed on a model that another one has changed; and it gets the
    LoRA dropout of the one whose turn it is.

    An objective whose epochs differ (SPRec takes turns of SFT and DPO) has steps of each kind in its turns,
    weighted as `train.epochs` schedules them. What a draw of windows makes once for several epochs, answers
    of the model, is made in the steps that use them: the same work for each window.

    Args:
        run: data, model and training; its objective is replaced.
        objectives: by label.
        task: the run's data in tokens.
        steps: optimiser steps of a turn.
        rank, world, device: this worker.
    """

    def __init__(
        self,
        run: RunConfig,
        objectives: Mapping[str, TimedObjective],
        task: Task,
        *,
        steps: int,
        rank: int,
        world: int,
        device: torch.device,
    ) -> None:
        self.labels: Sequence[str] = list(objectives)
        self.steps = steps
        self.pad_token_id = task.pad_token_id
        self.model = new_model(run, device, task)
        self._start = {name: p.detach().clone() for name, p in trainable(self.model).items()}
        shared = SharedTask.of(task)
        self.loops: dict[str, Loop] = {}
        for label, objective in objectives.items():
            self.loops[label] = Loop(
                replace(run, objective=objective.config),
                shared,
                rank=rank,
                world=world,
                device=device,
                log=_no_log,
                model=self.model,
            )
        self._dropout = {label: objective.lora_dropout for label, objective in objectives.items()}
        self._states = {label: loop.objective.state_dict() for label, loop in self.loops.items()}
        self.kinds = {label: _kinds(loop) for label, loop in self.loops.items()}
        """Of each label, the different rounds of its schedule, with their share of its steps."""
        first = self.loops[self.labels[0]]
        size = run.train.batch_size
        plan = plan_epoch(first.lengths, size, seed=run.train.seed, epoch=0)
        whole = [batch for batch in plan if len(batch) == size]
        self.batches = whole or plan
        """The steps of an epoch, in their order; a last one that is not full is left out."""
        self._lengths = first.lengths

    def body(self, label: str) -> nn.Module:
        body = causal_lm(self.model).base_model
        assert isinstance(body, nn.Module)
        return body

    def begin(self, label: str, number: int) -> list[Callable[[], None]]:
        loop = self.loops[label]
        with torch.no_grad():
            for name, parameter in trainable(self.model).items():
                parameter.copy_(self._start[name])
        set_dropout(self.model, self._dropout[label])
        loop.objective.load_state_dict(self._states[label])
        self.model.train()
        return [
            partial(_step, loop, kind, step % loop.total_steps, self._batch(step))
            for kind, _ in self.kinds[label]
            for step in self._numbers(number)
        ]

    def weights(self, label: str) -> list[float]:
        return [share / self.steps for _, share in self.kinds[label] for _ in range(self.steps)]

    def steps_per_epoch(self, label: str) -> float:
        """Mean over the epochs of a run."""
        loop = self.loops[label]
        return loop.total_steps / len(loop.timeline.rounds)

    def size(self, number: int) -> int:
        """Tokens of the windows' prompts and targets, without padding and without other answers: the same for
        every objective."""
        return sum(self._lengths[i] for step in self._numbers(number) for i in self._batch(step))

    def _numbers(self, number: int) -> range:
        return range(number * self.steps, (number + 1) * self.steps)

    def _batch(self, step: int) -> np.ndarray:
        return self.batches[step % len(self.batches)]


def _step(loop: Loop, kind: Round, step: int, batch: np.ndarray) -> None:
    """A step of one kind of round; the loop is told here, since kinds take turns."""
    loop.round = kind
    loop.module.objective = kind.loss
    loop.train_step(step, batch)


def _kinds(loop: Loop) -> list[tuple[Round, float]]:
    """The rounds of a loop's schedule with different losses, and their share of its steps."""
    found: dict[str, tuple[Round, int]] = {}
    for epoch, kind in enumerate(loop.timeline.rounds):
        first, steps = found.get(kind.label, (kind, 0))
        found[kind.label] = (first, steps + loop.timeline.steps_of(epoch))
    return [(kind, steps / loop.total_steps) for kind, steps in found.values()]


def _no_log(row: object) -> None:
    """What a step logs is computed, as in a run, and not kept."""
