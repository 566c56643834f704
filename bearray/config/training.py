"""The loss, and how it is optimised."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bearray.config.checks import at_least, positive, require

Normalize = Literal["trie", "full"]
Form = Literal["equation", "released", "hinge"]
NegativeKind = Literal["uniform", "popularity", "near", "self"]


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """The loss. Fields that a loss does not use are ignored by it and left out of its name."""

    name: str = "bear"
    """A registered objective (`bearray objectives`)."""
    lam: float = 0.25
    """BEAR: weight of the regulariser (the paper's lambda; searched in [0.1, 5.0])."""
    xi: float = 1.0
    """BEAR: temperature of the sigmoid (the paper's xi; searched in [0.25, 3.0])."""
    beam_width: int = 10
    """BEAR: the B of "in the top B"."""
    form: Form = "equation"
    """BEAR: equation (3.4)/(3.5), the released code, or the hinge -log sigmoid(-margin / xi)."""
    vocabulary: Normalize = "trie"
    """MSL, BEAR: softmax over the trie's valid next tokens, or over the full vocabulary."""
    tau: float = 1.0
    """MSL, BEAR: softmax temperature."""
    adaptive: bool = False
    """MSL: adaptive temperature (ATS) instead of a fixed one."""
    mix: float = 0.0
    """Objective (3.1): share of BEAR's own margin, in [0, 1]."""
    beta: float | None = None
    """S-DPO, DPO, DMPO, RosePO: scale of the reward (None: the published one of each)."""
    negatives: int = 3
    """S-DPO, DMPO: other titles for each window; DPO and RosePO always take one."""
    negative_kind: NegativeKind | None = None
    """S-DPO, DPO, DMPO, RosePO: uniform over titles, by training popularity, near in the base model's
    embeddings, or the model's own best wrong titles (None: the published one of each)."""
    near_to: Literal["history", "target"] = "history"
    """Negatives of kind near: near the titles of the history, or near the target's title."""
    reference: Literal["start", "base"] = "start"
    """S-DPO, DPO, DMPO, RosePO: the frozen model that rewards are relative to: the adapter as training
    started with it (`train.init_adapter`; a new one changes nothing), or the base model without one."""
    smoothing: float | None = 0.1
    """RosePO: probability that a preference is the wrong way round (None: from a per-user score matrix)."""
    mask_common_prefix: bool = False
    """S-DPO with BEAR: leave a negative's tokens that it shares with the target out of the regulariser."""

    def __post_init__(self) -> None:
        require(math.isfinite(self.lam) and self.lam >= 0, "objective.lam", self.lam, "at least 0")
        positive("objective.xi", self.xi)
        positive("objective.tau", self.tau)
        require(0 <= self.mix <= 1, "objective.mix", self.mix, "in [0, 1]")
        at_least("objective.beam_width", self.beam_width, 1)
        if self.beta is not None:
            positive("objective.beta", self.beta)
        at_least("objective.negatives", self.negatives, 1)
        require(
            self.smoothing is None or 0 <= self.smoothing < 0.5,
            "objective.smoothing",
            self.smoothing,
            "in [0, 0.5), or None to take it from per-user scores",
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Optimisation and its distribution over workers."""

    epochs: int = 10
    """Passes over the training windows."""
    batch_size: int = 128
    """Windows per optimiser step, over all workers and accumulation steps."""
    micro_batch_size: int = 16
    """Windows per forward pass and worker; accumulation steps follow from it."""
    lr: float = 1e-4
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.0
    """AdamW weight decay."""
    warmup_steps: int = 20
    """Linear warm-up, in optimiser steps."""
    schedule: Literal["linear", "constant"] = "linear"
    """Learning rate after warm-up: linear to 0, or constant."""
    max_grad_norm: float = 1.0
    """Gradient clipping by global norm (0: none)."""
    seed: int = 42
    """Seed of initialisation, order and dropout."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Compute type; auto is bf16 on GPU and fp32 on CPU."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
    engine: Literal["auto", "deepspeed", "ddp"] = "auto"
    """auto takes DeepSpeed where it is installed, else plain DDP."""
    zero_stage: int = 2
    """DeepSpeed ZeRO stage, 0 to 3; LoRA rarely needs more than 2."""
    num_workers: int = 1
    """Ray Train workers; on GPU one GPU each."""
    cpus_per_worker: float = 1.0
    """CPUs reserved for each worker."""
    max_failures: int = 3
    """Restarts from the last checkpoint after a lost worker."""
    validate_every: int = 1
    """Epochs between validations; the last epoch is always validated."""
    init_adapter: str | None = None
    """Adapter to start from, of the same base model and LoRA settings: a folder or URI of one, or of a
    checkpoint with one (None: a new adapter, which changes nothing)."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "micro_batch_size", "num_workers", "validate_every"):
            at_least(f"train.{name}", getattr(self, name), 1)
        positive("train.lr", self.lr)
        positive("train.cpus_per_worker", self.cpus_per_worker)
        for name in ("weight_decay", "warmup_steps", "max_grad_norm", "max_failures"):
            at_least(f"train.{name}", getattr(self, name), 0)
        require(
            self.init_adapter is None or bool(self.init_adapter),
            "train.init_adapter",
            self.init_adapter,
            "a folder or URI, or None",
        )
        require(self.zero_stage in (0, 1, 2, 3), "train.zero_stage", self.zero_stage, "0, 1, 2 or 3")
        require(
            self.batch_size >= self.num_workers,
            "train.batch_size",
            self.batch_size,
            f"at least train.num_workers ({self.num_workers})",
        )
