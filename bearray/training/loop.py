"""The one training loop: schedules rounds and steps, validates, saves. Objective, backbone and engine are
parts it is given.

It knows torch.distributed but not Ray; `bearray.training.worker` connects the two. Every random choice
depends on (seed, step, micro-batch, rank) alone, so a run that was interrupted continues as if it had not
been.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from bearray.backbones.llara import hybrid_step
from bearray.backbones.reference import add_reference, refresh_reference
from bearray.batching import TokenBatch, plan_epoch, split_batch
from bearray.config import RunConfig
from bearray.errors import ResumeError
from bearray.extras import Extras, UserScores
from bearray.negatives import OtherAnswers
from bearray.objectives import LossOutput, Objective, at_least, make_objective
from bearray.recommend import DecoderInputs
from bearray.step import TrainStep
from bearray.task import Task
from bearray.training.checkpoint import load_answers, restore_checkpoint, save_checkpoint
from bearray.training.collator import Collator
from bearray.training.divergence import Divergence
from bearray.training.engine import make_engine
from bearray.training.start import new_model
from bearray.training.sums import StepSums, summed
from bearray.training.timeline import Timeline, learning_rate
from bearray.training.user_scores import SASRecScores
from bearray.training.validation import validate
from bearray.training.weight import StepWeight
from bearray.training.windows import NoAnswersError, RoundWindows

Log = Callable[[dict[str, Any]], None]


class Loop:
    """A model in training on this worker.

    Args:
        config: the run.
        task: its data set in tokens.
        rank, world: this worker's number, and how many there are.
        device: where the model goes.
        log: called on rank 0 with each row of metrics.jsonl.
        step_done: called on every worker after each optimiser step, with its number.
        user_scores: a text-free model's scores, for objectives that need them; None: SASRec's, which is
            trained first where this machine's cache does not have it.
        model: a model with an adapter that is loaded already and may be shared by several loops, on
            `device`; None loads the run's own. It is taken as it is: `model` and `train.precision` of the
            config, and `train.init_adapter`, are those it was made with.

    Raises:
        ConfigError: the objective needs something that there is not.
    """

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        *,
        rank: int,
        world: int,
        device: torch.device,
        log: Log,
        step_done: Callable[[int], None] | None = None,
        user_scores: UserScores | None = None,
        model: nn.Module | None = None,
    ) -> None:
        self.config, self.task, self.rank, self.world, self.device, self.log = (
            config, task, rank, world, device, log,
        )  # fmt: skip
        self.step_done = step_done
        train = config.train
        self.examples = task.examples()
        self.valid_cases = task.cases("valid")
        self.decoder_inputs = DecoderInputs(task, device)
        self.trie = self.decoder_inputs.trie
        self.objective = make_objective(config.objective)
        if user_scores is None and "user_scores" in self.objective.needs:
            user_scores = SASRecScores(
                self.decoder_inputs.sasrec(), task.histories("train"), announce=rank == 0
            )
        extras = Extras(task, self.trie, self.objective.needs, user_scores)
        self.objective.check_needs(extras.provided)
        self.objective.bind(task.catalog.trie)
        loaded = new_model(config, device, task) if model is None else model
        self.model = cast(Any, loaded)  # with PEFT's and transformers' methods
        if "reference" in self.objective.needs:
            add_reference(self.model, config.objective.reference)
        soft = config.model.soft
        self.curriculum = task.backbone.curriculum and soft.curriculum and train.init_adapter is None
        """Early steps leave soft tokens blank."""
        others = None
        if self.objective.negatives is not None:
            others = OtherAnswers(
                self.objective.negatives, config, task, self.examples, self.model, self.trie
            )
        if train.gradient_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
            self.model.enable_input_require_grads()
        self.accumulation = -(-train.batch_size // (world * train.micro_batch_size))
        """Micro-batches of a step on each worker."""
        self.collate = Collator(task, self.examples, self.objective, device)
        self.timeline = Timeline(
            self.objective.schedule(train.epochs), windows=len(self.examples), batch_size=train.batch_size
        )
        self.round = self.timeline.rounds[0]
        """What the epoch under way does."""
        self.module = TrainStep(
            self.model,
            self.round.loss,
            self.trie,
            task.eos_token_id,
            extras,
            extras.of_windows,
            config.objective.reference,
        )
        self.engine = make_engine(self.module, train, rounds=self.accumulation, device=device)
        self.windows = RoundWindows(
            others,
            self.engine,
            windows=len(self.examples),
            seed=train.seed,
            rank=rank,
            world=world,
            device=device,
        )
        self.divergence = Divergence(
            self.objective, task, self.module, self.engine, self.timeline, world=world
        )
        self.weight = StepWeight(self.examples, task.catalog.trie, extras, world=world, device=device)
        self.lengths = [len(e.prompt) + len(e.answer) for e in self.examples]
        """Tokens of each training window, prompt and answer."""
        self.epoch = 0
        """Epochs finished."""

    @property
    def step(self) -> int:
        """Optimiser steps of the finished epochs."""
        return self.timeline.first_step(self.epoch)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.timeline.total_steps

    @property
    def loss(self) -> Objective:
        """The loss of the epoch under way; that of the objective, where its rounds are alike."""
        return self.round.loss

    def restore(self, folder: Path) -> None:
        """Continue after the checkpoint in `folder`.

        Raises:
            ResumeError: it is incomplete, damaged or of another run.
        """
        self.epoch = restore_checkpoint(folder, self.model, self.engine, self.objective)
        self.windows.kept = load_answers(folder)
        if self.timeline.continues_draw(self.epoch) and self.windows.kept is None:
            raise ResumeError(
                f"checkpoint {folder} lacks the answers that epoch {self.epoch + 1} trains with"
            )

    def save(self, folder: Path) -> None:
        """Write a checkpoint; a collective, rank 0 writes."""
        answers = self.windows.kept if self.timeline.continues_draw(self.epoch) else None
        save_checkpoint(
            folder, self.model, self.engine, self.objective, epoch=self.epoch, rank=self.rank, answers=answers
        )

    def run_epoch(self) -> None:
        """All steps of the next epoch, which is the next round of the objective's schedule."""
        self.begin_round()
        self.model.train()
        train = self.config.train
        rows = self.windows.rows
        plan = plan_epoch(
            [self.lengths[r] for r in rows], train.batch_size, seed=train.seed, epoch=self.epoch
        )
        for step, batch in enumerate(plan, self.step):
            self.train_step(step, rows[batch])
            if self.step_done is not None:
                self.step_done(step)
        self.epoch += 1

    def begin_round(self) -> None:
        """Take up what the next epoch does: its loss, reference, windows and answers; a collective.

        Raises:
            DivergedError: the model cannot make the answers; on every worker.
        """
        continues = self.timeline.continues_draw(self.epoch)
        self.round = self.timeline.rounds[self.epoch]
        self.module.objective = self.loss
        if self.round.new_reference:
            self.refresh_reference()
        if not continues:
            draw = self.round.draw
            try:
                self.windows.begin(draw, self.step)
            except NoAnswersError as error:
                assert draw is not None  # else no answers are made before the steps
                rows = draw.rows(len(self.examples), seed=self.config.train.seed)
                raise self.divergence.of_answers(
                    self.step, rows, self._learning_rate(self.step), error
                ) from None

    def validate(self) -> dict[str, float]:
        """Decode the validation windows, each worker its share; a collective, the same on every worker."""
        with self.engine.gathered():
            return validate(
                self.model,
                self.valid_cases[self.rank :: self.world],
                self.config.decoding,
                self.decoder_inputs,
                expected=len(self.valid_cases),
            )

    def train_step(self, step: int, batch: np.ndarray) -> None:
        """One optimiser step: forward and backward passes of this worker's micro-batches, update, log row.

        A collective: every worker calls it with the same step and the same global batch.

        Args:
            step: number of the step from 0; seeds dropout and negatives, and sets the learning rate.
            batch: [windows] int64 numbers of the windows in the global batch (`plan_epoch`).

        Raises:
            DivergedError: the loss or its gradient is not finite, or the model cannot make the answers that
                the loss needs; on every worker, and nothing was updated.
        """
        began, lr = time.perf_counter(), self._learning_rate(step)
        parts = split_batch(batch, num_workers=self.world, rank=self.rank, rounds=self.accumulation)
        try:
            others = self.windows.answers(self.round, parts, step)
        except NoAnswersError as error:
            raise self.divergence.of_answers(step, batch, lr, error) from None
        hybrid = not self.curriculum or hybrid_step(step, self.total_steps, self.config.train.seed)
        micro = [
            self.collate(part, more, self.loss, hybrid=hybrid)
            for part, more in zip(parts, others, strict=True)
        ]
        weight = self.weight.known(self.loss, batch, micro, lambda k: self._forward(step, k, micro[k]))
        outputs = []
        for k, tokens in enumerate(micro):
            output = self._forward(step, k, tokens)
            if weight is None:
                weight = summed(output.weight.double(), self.world)
            scaled = output.total / at_least(weight).to(output.total.dtype)
            self.engine.backward(scaled, last=k == len(micro) - 1)
            outputs.append(output)
        # All workers know the sums, and the norm of the gradient, so they go on or stop together.
        sums = StepSums.of(outputs, self.world)
        if not sums.finite or not self.engine.step(lr, projectors_rest=not hybrid):
            windows = self.collate.alone(parts, others, self.loss, hybrid=hybrid)
            raise self.divergence.of_step(step, batch, lr, sums, windows)
        if sums.stats is not None:
            self.loss.end_step(sums.stats)
        if self.rank == 0:
            tokens_per_s = sum(self.lengths[i] for i in batch) / (time.perf_counter() - began)
            self.log(self._row(step, sums, lr) | {"tokens_per_s": tokens_per_s})

    def refresh_reference(self) -> None:
        """Make the adapter as it stands the frozen reference; a collective, for `objective.reference`
        "start"."""
        if self.config.objective.reference == "base":
            return
        with self.engine.gathered_adapter(modify=True):
            refresh_reference(self.model)

    def _forward(self, step: int, k: int, tokens: TokenBatch) -> LossOutput:
        seed = hash((self.config.train.seed, step, k, self.rank)) % 2**63
        torch.manual_seed(seed)  # dropout depends on where in the run we are, not on what ran before
        output: LossOutput = self.engine(tokens)
        return output

    def _row(self, step: int, sums: StepSums, lr: float) -> dict[str, Any]:
        """A row of metrics.jsonl."""
        return {
            "kind": "step",
            "step": step,
            "epoch": self.timeline.epochs_done(step),
            **({"round": self.round.label} if self.round.label else {}),
            "loss": sums.loss,
            "lr": lr,
            **sums.metrics,
        }

    def _learning_rate(self, step: int) -> float:
        train = self.config.train
        return learning_rate(
            step, self.total_steps, peak=train.lr, warmup=train.warmup_steps, schedule=train.schedule
        )
