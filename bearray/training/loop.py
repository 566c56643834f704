"""The one training loop: schedules rounds and steps, validates, saves. Objective, backbone and engine are
parts it is given.

It knows torch.distributed but not Ray; `bearray.training.worker` connects the two. Every random choice
depends on (seed, step, micro-batch, rank) alone, so a run that was interrupted continues as if it had not
been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from bearray.backbones.llara import hybrid_step
from bearray.backbones.reference import add_reference, refresh_reference
from bearray.backbones.soft import blanked
from bearray.batching import Answer, TokenBatch, collate, plan_epoch, split_batch
from bearray.config import RunConfig
from bearray.errors import ResumeError
from bearray.extras import Extras, UserScores
from bearray.negatives import OtherAnswers
from bearray.objectives import LossOutput, Objective, at_least, make_objective
from bearray.recommend import DecoderInputs
from bearray.step import TrainStep
from bearray.task import Task
from bearray.training.checkpoint import load_answers, restore_checkpoint, save_checkpoint
from bearray.training.diverged import DivergedError, What
from bearray.training.divergence import Culprits, broken_weights, examine, report_of
from bearray.training.engine import make_engine
from bearray.training.start import new_model
from bearray.training.sums import StepSums, summed
from bearray.training.timeline import Timeline, learning_rate
from bearray.training.user_scores import SASRecScores
from bearray.training.validation import validate
from bearray.training.windows import NoAnswersError, RoundWindows

Log = Callable[[dict[str, Any]], None]

_ANSWERS: dict[str, What] = {"rollout": "rollouts", "sample": "samples"}
"""What a report calls answers that the model makes, by `NegativeSpec.kind`; all others are negatives."""


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
        self.blank_prompt: list[int] | None = None
        """The prompt that names no history, for objectives that contrast it."""
        if "without_history" in self.objective.needs:
            self.blank_prompt = task.backbone.encode_without_history()
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
        self.lengths = [len(e.prompt) + len(e.answer) for e in self.examples]
        branching = self.trie.child_count(
            torch.tensor([n for e in self.examples for n in e.nodes], device=device)
        ).gt(1).cpu().numpy()  # fmt: skip
        self.answer_tokens = np.array([len(e.answer) for e in self.examples])
        starts = np.concatenate([[0], np.cumsum(self.answer_tokens)[:-1]])
        self.branching_tokens = np.add.reduceat(branching.astype(np.int64), starts)
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
    def steps_per_epoch(self) -> int:
        """Optimiser steps of the next epoch, or of the last where none is left; rounds may differ in them."""
        return self.timeline.steps_of(min(self.epoch, len(self.timeline.rounds) - 1))

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
        if self._continues_draw and self.windows.kept is None:
            raise ResumeError(
                f"checkpoint {folder} lacks the answers that epoch {self.epoch + 1} trains with"
            )

    def save(self, folder: Path) -> None:
        """Write a checkpoint; a collective, rank 0 writes."""
        answers = self.windows.kept if self._continues_draw else None
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
        continues = self._continues_draw
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
                raise self._without_answers(self.step, rows, error) from None

    @property
    def _continues_draw(self) -> bool:
        """The next epoch has the windows and answers of the last one."""
        rounds = self.timeline.rounds
        if not 0 < self.epoch < len(rounds) or rounds[self.epoch].draw is None:
            return False
        return rounds[self.epoch].draw == rounds[self.epoch - 1].draw

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
        began = time.perf_counter()
        train = self.config.train
        parts = split_batch(batch, num_workers=self.world, rank=self.rank, rounds=self.accumulation)
        try:
            others = self._other_answers(step, parts)
        except NoAnswersError as error:
            raise self._without_answers(step, batch, error) from None
        hybrid = not self.curriculum or hybrid_step(step, self.total_steps, train.seed)
        micro = [self._collated(part, more, hybrid) for part, more in zip(parts, others, strict=True)]
        weight = self._known_weight(step, batch, micro)
        outputs = []
        for k, tokens in enumerate(micro):
            output = self._forward(step, k, tokens)
            if weight is None:
                weight = summed(output.weight.double(), self.world)
            scaled = output.total / at_least(weight).to(output.total.dtype)
            self.engine.backward(scaled, last=k == len(micro) - 1)
            outputs.append(output)
        lr = self._learning_rate(step)
        # All workers know the sums, and the norm of the gradient, so they go on or stop together.
        sums = StepSums.of(outputs, self.world)
        what: What = "gradient" if sums.finite else "loss"
        if not sums.finite or not self.engine.step(lr, projectors_rest=not hybrid):
            windows = (
                (int(row), self._collated(np.array([row]), None if more is None else [more[i]], hybrid))
                for part, more in zip(parts, others, strict=True)
                for i, row in enumerate(part)
            )
            with self.engine.gathered():
                found = examine(self.module, windows, what)
            metrics = {name: value for name, value in sums.metrics.items() if value is not None}
            raise self._diverged(step, batch, found, what, sums.loss, metrics)
        if sums.stats is not None:
            self.loss.end_step(sums.stats)
        if self.rank == 0:
            tokens_per_s = sum(self.lengths[i] for i in batch) / (time.perf_counter() - began)
            self.log(self._row(step, sums, lr) | {"tokens_per_s": tokens_per_s})

    def _other_answers(self, step: int, parts: list[np.ndarray]) -> list[list[list[Answer]] | None]:
        """The answers beside the targets of each micro-batch; all made at once, by the same model."""
        found = self.windows.answers(self.round, [int(i) for part in parts for i in part], step)
        if found is None:
            return [None] * len(parts)
        flat = iter(found)
        return [[next(flat) for _ in part] for part in parts]

    def _collated(self, rows: np.ndarray, others: list[list[Answer]] | None, hybrid: bool) -> TokenBatch:
        choices = self.task.catalog.trie if self.loss.positions == "branching" else None
        batch = collate(
            [self.examples[i] for i in rows],
            self.task.pad_token_id,
            others,
            choices=choices,
            without_history=self.blank_prompt,
        )
        if not hybrid:
            batch.input_ids = blanked(batch.input_ids)
        return batch.to(self.device)

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

    def _known_weight(self, step: int, batch: np.ndarray, micro: list[TokenBatch]) -> torch.Tensor | None:
        """What the step's summed loss is divided by, or None where the single forward pass will tell.

        Every worker knows the whole batch, so counts need no communication. Where the weight depends on the
        logits of several micro-batches, they are computed once more, without gradients, first.
        """
        if self.loss.weight_from == "counts":
            total = self.loss.weight_of(
                int(self.answer_tokens[batch].sum()), int(self.branching_tokens[batch].sum()), len(batch)
            )
            return torch.tensor(total, dtype=torch.float64, device=self.device)
        if self.loss.weight_from == "extras":
            extras = self.module.extras
            assert extras is not None
            own = [self.loss.token_weights(extras(b), b.instance).sum().double() for b in micro]
            return summed(torch.stack(own).sum(), self.world)
        if len(micro) == 1:
            return None
        with torch.no_grad():
            weights = [self._forward(step, k, tokens).weight.double() for k, tokens in enumerate(micro)]
        return summed(torch.stack(weights).sum(), self.world)

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

    def _without_answers(
        self, step: int, rows: Sequence[int] | np.ndarray, error: NoAnswersError
    ) -> DivergedError:
        """What is to be raised on every worker where answers for the windows `rows` cannot be made; a
        collective."""
        assert self.objective.negatives is not None
        what = _ANSWERS.get(self.objective.negatives.kind, "negatives")
        with self.engine.gathered():
            found = Culprits(weights=broken_weights(self.module), windows=[(r, 0, what) for r in error.rows])
        return self._diverged(step, rows, found, what, math.nan, {})

    def _diverged(
        self,
        step: int,
        batch: Sequence[int] | np.ndarray,
        own: Culprits,
        what: What,
        value: float,
        metrics: dict[str, float],
    ) -> DivergedError:
        """What is to be raised on every worker, which has found `own`; a collective."""
        found: list[Any] = [own] * self.world
        if self.world > 1:
            dist.all_gather_object(found, own)
        user_ids = self.task.windows("train")["user_id"].to_numpy()
        return DivergedError.of(
            report_of(
                found,
                objective=self.config.objective.name,
                what=what,
                step=step,
                epoch=self.timeline.epochs_done(step - 1) if step else 0.0,
                lr=self._learning_rate(step),
                value=value,
                metrics=metrics,
                users={int(row): int(user_ids[row]) for row in sorted(batch)},
            )
        )
