"""The loss, and how it is optimised."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bearray.config.checks import at_least, optional_count, positive, require

Normalize = Literal["trie", "full"]
Form = Literal["equation", "released", "hinge"]
NegativeKind = Literal["uniform", "popularity", "near", "self"]
BestOfUpdate = Literal["static", "dynamic"]
Device = Literal["auto", "gpu", "cpu"]
Placement = Literal["pack", "strict_pack", "spread", "strict_spread"]


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
    contrast: float = 0.1
    """CFT: weight of the loss of what the history adds."""
    last_weight: float | None = None
    """CFT: weight of an answer's last token, in [0, 1]; the first one's is 1 (None: the released 0.25)."""
    power: float | None = None
    """D2LR-IPS: power of the inverse popularity that an answer is weighted by (None: 0.1; 0 is SFT, but for a
    mean over titles)."""
    uninformative_weight: float | None = None
    """IGD: weight of tokens that tell nothing about the item; the others' is 1 (None: 0.1)."""
    beta: float | None = None
    """S-DPO, DPO, DMPO, RosePO, SPRec: scale of the reward (None: 1 for S-DPO and 0.1 for DPO and SPRec, as
    published; 0.3 for DMPO and RosePO, which is Flower's port's, as their own is not known here)."""
    negatives: int = 3
    """S-DPO, DMPO: other titles for each window; DPO and RosePO always take one."""
    negative_kind: NegativeKind | None = None
    """S-DPO, DPO, DMPO, RosePO: uniform over titles, by training popularity, near in the base model's
    embeddings, or the model's own best wrong titles (None: popularity for RosePO, uniform for the others, as
    in Flower's port of them to the whole catalogue)."""
    near_to: Literal["history", "target"] = "history"
    """Negatives of kind near: near the titles of the history, or near the target's title."""
    reference: Literal["start", "base"] = "start"
    """S-DPO and its kin, GRPO, best-of-N: the frozen model that they are relative to: the adapter as training
    started with it (`train.init_adapter`; a new one changes nothing), or the base model without one."""
    smoothing: float | None = 0.1
    """RosePO: probability that a preference is the wrong way round. The source has an oracle's for each pair:
    None takes it from SASRec's scores; a number for all pairs, such as the default, is ours."""
    mask_common_prefix: bool = False
    """S-DPO with BEAR: leave a negative's tokens that it shares with the target out of the regulariser."""
    rollouts: int = 16
    """GRPO, best-of-N: titles that beam search finds for each window, as the policy stands."""
    kl_weight: float = 1e-3
    """GRPO: weight of the divergence from the reference."""
    best_of: int = 16
    """Best-of-N: the N."""
    best_of_update: BestOfUpdate = "dynamic"
    """Best-of-N: the target is made from the reference alone, or follows the policy."""
    prior_weight: float = 16.0
    """Best-of-N, dynamic: how many rollouts the reference's opinion is worth."""
    theta: float = 0.999
    """Flower: weight of SFT in [0, 1]; the rest is the flow's."""
    personalised: bool = True
    """Flower: rewards by SASRec's scores for the user, as released; False: by training counts alone."""

    sft_epochs: int | None = None
    """SPRec: epochs of SFT before the first iteration, which takes an epoch of SFT and one of DPO (None: such
    that whole iterations fill the rest, in the published proportion of 4 to 10)."""
    round_windows: int | None = None
    """SPRec: training windows of each iteration (None: all; published: 2048)."""

    def __post_init__(self) -> None:
        require(math.isfinite(self.lam) and self.lam >= 0, "objective.lam", self.lam, "at least 0")
        positive("objective.xi", self.xi)
        positive("objective.tau", self.tau)
        at_least("objective.contrast", self.contrast, 0)
        require(
            self.last_weight is None or 0 <= self.last_weight <= 1,
            "objective.last_weight",
            self.last_weight,
            "in [0, 1], or None",
        )
        for name in ("power", "uninformative_weight"):
            value = getattr(self, name)
            require(
                value is None or (math.isfinite(value) and value >= 0),
                f"objective.{name}",
                value,
                "at least 0, or None",
            )
        require(0 <= self.mix <= 1, "objective.mix", self.mix, "in [0, 1]")
        at_least("objective.beam_width", self.beam_width, 1)
        if self.beta is not None:
            positive("objective.beta", self.beta)
        at_least("objective.negatives", self.negatives, 1)
        require(
            self.sft_epochs is None or self.sft_epochs >= 0,
            "objective.sft_epochs",
            self.sft_epochs,
            "at least 0, or None",
        )
        optional_count("objective.round_windows", self.round_windows)
        require(
            self.smoothing is None or 0 <= self.smoothing < 0.5,
            "objective.smoothing",
            self.smoothing,
            "in [0, 0.5), or None to take it from per-user scores",
        )
        at_least("objective.rollouts", self.rollouts, 1)
        at_least("objective.kl_weight", self.kl_weight, 0)
        at_least("objective.best_of", self.best_of, 1)
        positive("objective.prior_weight", self.prior_weight)
        require(0 <= self.theta <= 1, "objective.theta", self.theta, "in [0, 1]")


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
    device: Device = "auto"
    """auto: GPUs where the cluster has some or its autoscaler may add some, else CPUs. gpu waits for GPUs and
    never trains on CPUs."""
    accelerator: str | None = None
    """Kind of GPU to train on, by Ray's name of it, such as A100 or L40S (None: any)."""
    placement: Placement = "pack"
    """Where a run's workers go: pack (few nodes, best for speed), strict_pack (one node, or wait for one),
    spread (over nodes), strict_spread (each on a node of its own)."""
    max_failures: int = 3
    """Restarts from the last checkpoint after a lost worker."""
    hang_timeout_s: float = 1800.0
    """Seconds without any progress after which a worker counts as hanging and all are started again from the
    last checkpoint; the first step may take half an hour in any case (0: wait for ever)."""
    validate_every: int = 1
    """Epochs between validations; the last epoch is always validated."""
    init_adapter: str | None = None
    """Adapter to start from, of the same base model and LoRA settings: a folder or URI of one, or of a
    checkpoint with one, or run:ID, the best checkpoint of another run in a sweep's storage (None: a new
    adapter, which changes nothing)."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "micro_batch_size", "num_workers", "validate_every"):
            at_least(f"train.{name}", getattr(self, name), 1)
        positive("train.lr", self.lr)
        positive("train.cpus_per_worker", self.cpus_per_worker)
        for name in ("weight_decay", "warmup_steps", "max_grad_norm", "max_failures", "hang_timeout_s"):
            at_least(f"train.{name}", getattr(self, name), 0)
        require(
            self.init_adapter is None or bool(self.init_adapter),
            "train.init_adapter",
            self.init_adapter,
            "a folder or URI, or None",
        )
        require(
            self.accelerator is None or (bool(self.accelerator) and self.device != "cpu"),
            "train.accelerator",
            self.accelerator,
            "None, or the name of a GPU, and then train.device is not cpu",
        )
        require(self.zero_stage in (0, 1, 2, 3), "train.zero_stage", self.zero_stage, "0, 1, 2 or 3")
        require(
            self.batch_size >= self.num_workers,
            "train.batch_size",
            self.batch_size,
            f"at least train.num_workers ({self.num_workers})",
        )
