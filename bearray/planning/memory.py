"""Memory of a device in training and in evaluation, part by part."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import ceil
from types import SimpleNamespace

from bearray.config import ModelConfig, ObjectiveConfig, RunConfig
from bearray.decoding.batches import GPU_SHARE, GPU_USERS, user_bytes
from bearray.objectives import make_objective
from bearray.planning.activations import FLOAT, MicroBatch, Numbers, activations
from bearray.planning.assumed import ROOM
from bearray.planning.cards import Device
from bearray.planning.shapes import Shape
from bearray.planning.work import Work

GATHERED = 1_000_000_000
"""Weights that DeepSpeed keeps whole at a time in stage 3, at most (stage3_max_live_parameters)."""
SOFT_WIDTH = 64
"""Width of SASRec's vectors, which LLaRA projects; A-LLMRec's users have them, too, and its items 128."""
TRIE_BYTES = 8.5 * 24
"""Of a title: nodes, and bytes a node (docs/scale.md)."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What an objective asks of a training step."""

    answers: int
    """Answers of each window: its target, and others."""
    branching: bool
    """Only tokens with an alternative are predicted."""
    candidates_only: bool
    """Only valid tokens' columns of the vocabulary are computed."""
    reference: bool
    """It needs a frozen copy of the adapter."""
    without_history: bool
    """All answers are computed behind a second prompt, too."""

    @classmethod
    def of(cls, config: ObjectiveConfig) -> Demand:
        """Of an objective by its settings; of SPRec the most demanding of its rounds.

        Raises:
            ConfigError: there is no such objective.
        """
        objective = make_objective(config)
        others = objective.negatives
        return cls(
            answers=1 + (others.count if others is not None else 0),
            branching=objective.positions == "branching",
            candidates_only=objective.candidates_only,
            reference="reference" in objective.needs and config.reference == "start",
            without_history="without_history" in objective.needs,
        )


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one device, at most at any time of training."""

    weights: int
    """The frozen base model; in stage 3 this device's share, and what is gathered at a time."""
    adapter: int
    """What is trained, and its frozen copy where the objective needs one."""
    gradients: int
    """Of what is trained, with DeepSpeed's buffer."""
    optimizer: int
    """Adam's moments, and DeepSpeed's own copy of what is trained."""
    activations: int
    """Of one micro-batch, at the peak of its forward and backward pass."""
    trie: int

    @property
    def total(self) -> int:
        return sum(getattr(self, f.name) for f in fields(self))


def longest_batch(shape: Shape, work: Work, demand: Demand, rows: int) -> MicroBatch:
    """A micro-batch of the longest windows: as batches hold windows of like length, there is one such."""
    shared = int(work.shared_tokens) if rows > 1 else 0
    fed = demand.answers * (work.longest_answer - 1)
    width = work.longest_prompt - shared + fed
    predicted = rows * demand.answers * work.longest_answer
    columns = None
    if demand.candidates_only:  # what can come first, and some other choices of each row
        columns = min(shape.vocabulary, work.choices + 4 * predicted)
    return MicroBatch(
        rows=rows,
        shared=shared,
        width=width,
        tokens=shared + rows * width,
        predicted=predicted,
        choices=work.choices,
        columns=columns,
        masked=shared > 0 or demand.answers > 1,
    )


def trained_weights(shape: Shape, model: ModelConfig) -> int:
    """Of the adapter and of the projectors of soft tokens."""
    adapter = shape.adapter(model.lora_r, model.lora_targets)
    hidden = shape.hidden
    projector = hidden * (hidden + 2)
    if model.backbone == "llara":
        return adapter + projector + SOFT_WIDTH * hidden
    if model.backbone == "allmrec":
        return adapter + 2 * (projector + 2 * hidden) + 3 * SOFT_WIDTH * hidden
    return adapter


def training_memory(shape: Shape, config: RunConfig, work: Work, device: Device) -> Memory:
    """What training takes on each device.

    Args:
        shape: of the base model.
        config: the run: objective, LoRA, ZeRO stage, workers, micro-batch, checkpointing.
        work: lengths of windows. device: what it runs on.
    """
    train, demand = config.train, Demand.of(config.objective)
    element, workers = _element(config, device), train.num_workers
    zero = train.zero_stage if train.engine != "ddp" else 0
    trained = trained_weights(shape, config.model)
    whole = element * shape.weights
    weights = whole
    if zero == 3 and workers > 1:
        weights = ceil(whole / workers) + min(whole, element * GATHERED)
    share = workers if zero > 0 else 1
    own = FLOAT * (ceil(trained / workers) if zero == 3 else trained)
    moments = 2 * FLOAT * ceil(trained / share)
    master = FLOAT * ceil(trained / share) if zero > 0 else 0
    partition = 2 * FLOAT * ceil(trained / share) if zero > 0 else 0
    bucket = FLOAT * trained if zero > 0 or workers > 1 else 0
    batch = longest_batch(shape, work, demand, train.micro_batch_size)
    numbers = Numbers(element=element, fused_dropout=device.is_gpu)
    step = activations(shape, batch, config.model, numbers, checkpointing=train.gradient_checkpointing)
    peak = step.peak
    if demand.without_history:
        peak += _without_history(shape, batch, config, numbers, demand, work)
    return Memory(
        weights=weights,
        adapter=own + (FLOAT * trained if demand.reference else 0),
        gradients=FLOAT * trained + partition + bucket,
        optimizer=moments + master,
        activations=peak,
        trie=ceil(TRIE_BYTES * work.titles),
    )


def _without_history(
    shape: Shape, batch: MicroBatch, config: RunConfig, numbers: Numbers, demand: Demand, work: Work
) -> int:
    """What the second prompt's pass keeps: one row with all answers behind it."""
    width = int(work.shared_tokens) + batch.rows * demand.answers * (work.longest_answer - 1)
    second = replace(batch, rows=1, shared=0, width=width, tokens=width, masked=True)
    checkpointing = config.train.gradient_checkpointing
    kept = activations(shape, second, config.model, numbers, checkpointing=checkpointing).kept
    return kept + FLOAT * batch.predicted * shape.vocabulary


def _element(config: RunConfig, device: Device) -> int:
    """Bytes of a weight under the run's precision."""
    precision = config.train.precision
    if precision == "auto":
        return {"auto": device.element, "bfloat16": 2, "float32": 4}[config.model.dtype]
    return 2 if precision == "bf16" else 4


def room(device: Device) -> int:
    """Bytes that tensors may fill."""
    return int((device.memory - ROOM.context_gb * 1e9) * ROOM.usable)


@dataclass(frozen=True, kw_only=True)
class DecodingMemory:
    """Bytes of one device in evaluation."""

    weights: int
    """Of the base model and the adapter."""
    user: int
    """Keys and values of a prompt and its beams' answers, and the work on them."""
    users: int
    """Users that a batch has then: as many as fit, at most `GPU_USERS`; 0: not even one."""

    @property
    def total(self) -> int:
        """With a batch of so many users, of one at least."""
        return self.weights + max(1, self.users) * self.user


def decoding_memory(shape: Shape, config: RunConfig, work: Work, device: Device) -> DecodingMemory:
    """What evaluation takes on each device; the decoder itself takes as many users at a time as fit."""
    element = _element(config, device)
    weights = element * shape.weights + FLOAT * trained_weights(shape, config.model)
    weights += ceil(TRIE_BYTES * work.titles)
    sizes = SimpleNamespace(
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
    )
    answers = config.decoding.beam_width * work.longest_answer
    user = user_bytes(sizes, element, work.longest_prompt, answers)
    free = GPU_SHARE * (device.memory - ROOM.context_gb * 1e9 - weights)
    users = min(config.decoding.batch_size or GPU_USERS, max(0, int(free // user)))
    return DecodingMemory(weights=weights, user=user, users=users)
