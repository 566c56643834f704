"""The one training loop: schedules steps, validates, saves. Objective, backbone and engine are parts it is
given.

It knows torch.distributed but not Ray; `bearray.training.worker` connects the two. Every random choice
depends on (seed, step, micro-batch, rank) alone, so a run that was interrupted continues as if it had not
been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from peft import PeftModel

from bearray.backbones.load import load_model
from bearray.backbones.lora import add_lora, start_from
from bearray.backbones.reference import add_reference, reference_parameters, refresh_reference
from bearray.batching import Answer, TokenBatch, collate, plan_epoch, split_batch
from bearray.config import RunConfig
from bearray.errors import BearrayError, ConfigError
from bearray.extras import PROVIDED, Extras, UserScores
from bearray.forward import check_projection, use_tree_attention
from bearray.negatives import OtherAnswers, check_negatives
from bearray.objectives import LossOutput, at_least, make_objective
from bearray.recommend import DecoderInputs
from bearray.step import TrainStep
from bearray.task import Task
from bearray.training.checkpoint import restore_checkpoint, save_checkpoint
from bearray.training.engine import make_engine
from bearray.training.start import check_init_adapter, init_adapter
from bearray.training.user_scores import SASRecScores
from bearray.training.validation import validate

Log = Callable[[dict[str, Any]], None]


class DivergedError(BearrayError, ArithmeticError):
    """The loss or its gradient is no longer a finite number."""


def learning_rate(step: int, total: int, *, peak: float, warmup: int, schedule: str) -> float:
    """Linear warm-up over `warmup` steps, then constant or linear to 0 at `total`; `step` counts from 0."""
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    fall = 1.0 if schedule == "constant" else min(1.0, (total - step) / max(1, total - warmup))
    return peak * rise * max(0.0, fall)


def new_model(config: RunConfig, device: torch.device) -> PeftModel:
    """The run's base model on `device` with its adapter: a new one, or that of `train.init_adapter`."""
    train = config.train
    dtype = {"auto": config.model.dtype, "bf16": "bfloat16", "fp32": "float32"}[train.precision]
    base = load_model(config.model.base, dtype=dtype, device=device)
    check_projection(base, device)
    use_tree_attention(base, device)
    model = add_lora(base, config.model, seed=train.seed)
    if train.init_adapter is not None:
        with init_adapter(train.init_adapter) as folder:
            start_from(model, folder, config.model)
    return model


class Loop:
    """A model in training on this worker.

    Args:
        config: the run.
        task: its data set in tokens.
        rank, world: this worker's number, and how many there are.
        device: where the model goes.
        log: called on rank 0 with each row of metrics.jsonl.
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
        user_scores: UserScores | None = None,
        model: PeftModel | None = None,
    ) -> None:
        self.config, self.task, self.rank, self.world, self.device, self.log = (
            config, task, rank, world, device, log,
        )  # fmt: skip
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
        self.model = new_model(config, device) if model is None else model
        if "reference" in self.objective.needs and config.objective.reference == "start":
            if reference_parameters(self.model):  # of an earlier loop on a shared model
                refresh_reference(self.model)
            else:
                add_reference(self.model)
        self.others = None
        if self.objective.negatives is not None:
            self.others = OtherAnswers(
                self.objective.negatives, config, task, self.examples, self.model, self.trie
            )
        if train.gradient_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
            self.model.enable_input_require_grads()
        self.rounds = -(-train.batch_size // (world * train.micro_batch_size))
        self.steps_per_epoch = -(-len(self.examples) // train.batch_size)
        self.total_steps = self.steps_per_epoch * train.epochs
        module = TrainStep(
            self.model,
            self.objective,
            self.trie,
            task.eos_token_id,
            extras,
            extras.of_windows,
            config.objective.reference,
        )
        self.engine = make_engine(module, train, rounds=self.rounds, device=device)
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
        return self.epoch * self.steps_per_epoch

    def restore(self, folder: Path) -> None:
        """Continue after the checkpoint in `folder`."""
        self.epoch = restore_checkpoint(folder, self.model, self.engine, self.objective)

    def save(self, folder: Path) -> None:
        """Write a checkpoint; a collective, rank 0 writes."""
        save_checkpoint(folder, self.model, self.engine, self.objective, epoch=self.epoch, rank=self.rank)

    def run_epoch(self) -> None:
        """All steps of the next epoch."""
        self.model.train()
        plan = plan_epoch(
            self.lengths, self.config.train.batch_size, seed=self.config.train.seed, epoch=self.epoch
        )
        first = self.step
        for number, batch in enumerate(plan):
            self.train_step(first + number, batch)
        self.epoch += 1

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
            DivergedError: the loss or its gradient is not finite.
        """
        began = time.perf_counter()
        train = self.config.train
        parts = split_batch(batch, num_workers=self.world, rank=self.rank, rounds=self.rounds)
        micro = self._micro_batches(step, parts)
        weight = self._known_weight(step, batch, micro)
        outputs = []
        for k, tokens in enumerate(micro):
            output = self._forward(step, k, tokens)
            if weight is None:
                weight = self._summed(output.weight.double())
            scaled = output.total / at_least(weight).to(output.total.dtype)
            self.engine.backward(scaled, last=k == len(micro) - 1)
            outputs.append(output)
        lr = learning_rate(
            step, self.total_steps, peak=train.lr, warmup=train.warmup_steps, schedule=train.schedule
        )
        updated = self.engine.step(lr)
        self._finish_step(step, outputs, began, lr, int(sum(self.lengths[i] for i in batch)))
        if not updated:
            raise DivergedError(f"the gradient of {self._diverged(step)}")

    def _micro_batches(self, step: int, parts: list[np.ndarray]) -> list[TokenBatch]:
        """This worker's windows with the answers that the objective wants."""
        pad = self.task.pad_token_id
        others: list[list[list[Answer]] | None] = [None] * len(parts)
        if self.others is not None:
            rows = [[int(i) for i in part] for part in parts]
            # All at once: the model is the same throughout the step, and ZeRO gathers its weights once.
            with self.engine.gathered() if self.others.uses_model else nullcontext():
                flat = iter(self.others([i for own in rows for i in own], step))
            others = [[next(flat) for _ in own] for own in rows]
        choices = self.task.catalog.trie if self.objective.positions == "branching" else None
        return [
            collate([self.examples[i] for i in part], pad, more, choices=choices).to(self.device)
            for part, more in zip(parts, others, strict=True)
        ]

    def refresh_reference(self) -> None:
        """Make the adapter as it stands the frozen reference; a collective, for `objective.reference`
        "start"."""
        with self.engine.gathered_adapter(modify=True):
            refresh_reference(self.model)

    def _forward(self, step: int, k: int, tokens: TokenBatch) -> LossOutput:
        seed = hash((self.config.train.seed, step, k, self.rank)) % 2**63
        torch.manual_seed(seed)  # dropout depends on where in the run we are, not on what ran before
        output: LossOutput = self.engine(tokens)
        return output

    def _known_weight(self, step: int, batch: np.ndarray, micro: list[TokenBatch]) -> torch.Tensor | None:
        """What the step's summed loss is divided by, or None where the single forward pass will tell.

        Every worker knows the whole batch, so no communication is needed, unless the weight depends on the
        logits of several micro-batches: then they are computed once more, without gradients, first.
        """
        if not self.objective.weight_from_forward:
            total = self.objective.weight_of(
                int(self.answer_tokens[batch].sum()), int(self.branching_tokens[batch].sum()), len(batch)
            )
            return torch.tensor(total, dtype=torch.float64, device=self.device)
        if len(micro) == 1:
            return None
        with torch.no_grad():
            weights = [self._forward(step, k, tokens).weight.double() for k, tokens in enumerate(micro)]
        return self._summed(torch.stack(weights).sum())

    def _summed(self, value: torch.Tensor) -> torch.Tensor:
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def _finish_step(
        self, step: int, outputs: list[LossOutput], began: float, lr: float, tokens: int
    ) -> None:
        """Add up losses, metrics and statistics over micro-batches and workers in one all-reduce."""
        names = sorted(outputs[0].metrics)
        flat = [
            torch.stack([o.total.detach(), o.weight, *(x for n in names for x in o.metrics[n])]).double()
            for o in outputs
        ]
        values = torch.stack(flat).sum(0)
        stats = [o.stats.double() for o in outputs if o.stats is not None]
        if stats:
            values = torch.cat([values, torch.stack(stats).sum(0).flatten()])
        values = self._summed(values).cpu()
        if stats:
            width = 2 + 2 * len(names)
            self.objective.end_step(values[width:].reshape(stats[0].shape))
        loss = float(values[0]) / max(float(values[1]), 1e-8)
        if not math.isfinite(loss):
            raise DivergedError(f"the loss of {self._diverged(step, loss)}")
        row = {
            "kind": "step",
            "step": step,
            "epoch": (step + 1) / self.steps_per_epoch,
            "loss": loss,
            "lr": lr,
        }
        for i, name in enumerate(names):
            count = float(values[3 + 2 * i])
            row[name] = float(values[2 + 2 * i]) / count if count else None
        row["tokens_per_s"] = tokens / (time.perf_counter() - began)
        if self.rank == 0:
            self.log(row)

    def _diverged(self, step: int, value: float = math.inf) -> str:
        return (
            f"{self.config.objective.name!r} is {value} at step {step}; "
            "lower train.lr or objective.lam, or raise objective.xi"
        )


def check_objective(config: RunConfig, task: Task) -> None:
    """Fail before anything is trained when an objective cannot work on this catalogue.

    Raises:
        ConfigError: what the objective lacks, by name, or what it cannot be combined with.
    """
    objective = make_objective(config.objective)
    objective.check_needs(PROVIDED)
    if "thresholds" in objective.needs and config.train.zero_stage == 3:
        raise ConfigError(
            f"objective {objective.name!r} searches while it trains, each worker its own number of passes, "
            "and ZeRO stage 3 needs equal numbers; set train.zero_stage to 2 or less"
        )
    objective.bind(task.catalog.trie)
    if objective.negatives is not None:
        check_negatives(objective.negatives, config, task)
    check_init_adapter(config)
