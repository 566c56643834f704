"""Every setting of a run, as frozen dataclasses that are checked when they are built.

A setting lives here and nowhere else: the command line is made from these classes, `config.json` in a run
folder is `to_dict(config)`, and workers get the dictionary back. Defaults are the paper's (arXiv 2601.22925,
section 5.1) where it states them, else those of its published code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from bearray.errors import ConfigError

C = TypeVar("C")

Normalize = Literal["trie", "full"]
Form = Literal["equation", "released", "hinge"]
NegativeKind = Literal["uniform", "popularity", "near", "self"]
DecodingMethod = Literal["beam", "d3", "diverse", "exact", "greedy", "grounding"]


def _require(condition: bool, name: str, value: object, wanted: str) -> None:
    if not condition:
        raise ConfigError(f"{name} is {value!r}; it must be {wanted}")


def _positive(name: str, value: float) -> None:
    _require(math.isfinite(value) and value > 0, name, value, "a number above 0")


def _at_least(name: str, value: float, low: float) -> None:
    _require(math.isfinite(value) and value >= low, name, value, f"at least {low:g}")


def _optional_count(name: str, value: int | None) -> None:
    _require(value is None or value >= 1, name, value, "None (all of them) or at least 1")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which windows are read and how titles are written."""

    path: str = ""
    """Folder with items.parquet and sequences_{train,valid,test}.parquet."""
    domain: str = "auto"
    """Prompt wording: one of `bearray.data.prompts.DOMAINS`, or "auto" for the folder's name."""
    domain_words: tuple[str, str, str] | None = None
    """Own wording: plural noun, past participle, singular noun, as in books read book; beats `domain`."""
    unescape: bool = True
    """Turn HTML entities in titles into characters; False keeps the published text."""
    strict: bool = False
    """Items without a title are an error instead of being left out."""
    train_windows: int | None = 10_000
    """Training windows for tuning (None: all); a published sample is used where the data marks one."""
    valid_windows: int | None = None
    """Validation windows decoded after each epoch (None: all)."""
    test_windows: int | None = 5_000
    """Test windows decoded at most (None: all); the published evaluation caps at 5,000."""
    sample_seed: int = 42
    """Seed of the window samples."""

    def __post_init__(self) -> None:
        for name in ("train_windows", "valid_windows", "test_windows"):
            _optional_count(f"data.{name}", getattr(self, name))
        if self.domain_words is not None:
            _require(
                len(self.domain_words) == 3 and all(self.domain_words),
                "data.domain_words",
                self.domain_words,
                "three words: plural, past participle, singular",
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The base model and its adapter."""

    base: str = "llama-3.2-3b"
    """A preset, a hub id, a folder, or local:tiny|small|medium (built from the training split)."""
    backbone: Literal["bigrec"] = "bigrec"
    """How a window becomes the model's input."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Weights' type; auto is bfloat16 on GPU and float32 on CPU."""
    lora_r: int = 8
    """Rank of the LoRA adapter."""
    lora_alpha: float = 16.0
    """LoRA scaling numerator."""
    lora_dropout: float = 0.05
    """Dropout on the adapter's input."""
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj")
    """Linear layers that get an adapter."""
    max_prompt_tokens: int | None = 1024
    """Longer prompts lose their oldest items (None: no limit)."""

    def __post_init__(self) -> None:
        _require(bool(self.base), "model.base", self.base, "a preset, hub id, folder or local:SIZE")
        _at_least("model.lora_r", self.lora_r, 1)
        _positive("model.lora_alpha", self.lora_alpha)
        _require(0 <= self.lora_dropout < 1, "model.lora_dropout", self.lora_dropout, "in [0, 1)")
        _require(bool(self.lora_targets), "model.lora_targets", self.lora_targets, "at least one layer name")
        _require(
            self.max_prompt_tokens is None or self.max_prompt_tokens >= 32,
            "model.max_prompt_tokens",
            self.max_prompt_tokens,
            "None or at least 32",
        )


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
        _require(math.isfinite(self.lam) and self.lam >= 0, "objective.lam", self.lam, "at least 0")
        _positive("objective.xi", self.xi)
        _positive("objective.tau", self.tau)
        _require(0 <= self.mix <= 1, "objective.mix", self.mix, "in [0, 1]")
        _at_least("objective.beam_width", self.beam_width, 1)
        if self.beta is not None:
            _positive("objective.beta", self.beta)
        _at_least("objective.negatives", self.negatives, 1)
        _require(
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
            _at_least(f"train.{name}", getattr(self, name), 1)
        _positive("train.lr", self.lr)
        _positive("train.cpus_per_worker", self.cpus_per_worker)
        for name in ("weight_decay", "warmup_steps", "max_grad_norm", "max_failures"):
            _at_least(f"train.{name}", getattr(self, name), 0)
        _require(
            self.init_adapter is None or bool(self.init_adapter),
            "train.init_adapter",
            self.init_adapter,
            "a folder or URI, or None",
        )
        _require(self.zero_stage in (0, 1, 2, 3), "train.zero_stage", self.zero_stage, "0, 1, 2 or 3")
        _require(
            self.batch_size >= self.num_workers,
            "train.batch_size",
            self.batch_size,
            f"at least train.num_workers ({self.num_workers})",
        )


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """How titles are found. Fields that a method does not use are ignored by it."""

    method: DecodingMethod = "beam"
    """A decoder (`bearray decoders`): beam search over the trie, or another one."""
    beam_width: int = 10
    """Beams kept, and titles returned (greedy: one title)."""
    normalize: Normalize = "trie"
    """Softmax over the valid next tokens (released MSL and BEAR) or the vocabulary (released SFT)."""
    length_penalty: float = 0.0
    """0 ranks by overall probability (the paper); 1 divides by length (the released code)."""
    exclude_history: bool = False
    """Leave out titles that the window's history holds; a target among them is a miss."""
    exact_node_budget: int | None = None
    """Exact: prefixes scored for one window at most (None: until the list is proven)."""
    d3_alpha: float = 0.9
    """D3: weight of the language model, in [0, 1]; the rest is the text-free model's. Tune it."""
    d3_scores: Literal["popularity", "sasrec"] = "popularity"
    """D3: the text-free model: counts in training plus 1, or SASRec (`bearray baseline sasrec`)."""
    diverse_groups: int = 5
    """Diverse beam search: groups, which must divide the beam width."""
    diverse_penalty: float = 0.5
    """Diverse beam search: what each earlier beam with the same token costs, in nats."""
    grounding_beams: int = 4
    """Grounding: beams of the unconstrained search (BIGRec's number)."""
    grounding_gamma: float = 0.0
    """Grounding: weight of popularity in the distance; 0 leaves it out."""
    batch_size: int | None = None
    """Users decoded at a time (None: as many as memory holds)."""

    def __post_init__(self) -> None:
        _at_least("decoding.beam_width", self.beam_width, 1)
        _require(
            self.batch_size is None or self.batch_size >= 1,
            "decoding.batch_size",
            self.batch_size,
            "at least 1, or None for what memory holds",
        )
        _require(math.isfinite(self.length_penalty), "decoding.length_penalty", self.length_penalty, "finite")
        _require(
            self.length_penalty == 0 or self.method in ("beam", "d3", "grounding"),
            "decoding.length_penalty",
            self.length_penalty,
            f"0 for decoding.method={self.method}, which ranks by probability",
        )
        _optional_count("decoding.exact_node_budget", self.exact_node_budget)
        _require(0 <= self.d3_alpha <= 1, "decoding.d3_alpha", self.d3_alpha, "in [0, 1]")
        _at_least("decoding.diverse_groups", self.diverse_groups, 1)
        _require(
            self.method != "diverse" or self.beam_width % self.diverse_groups == 0,
            "decoding.diverse_groups",
            self.diverse_groups,
            f"a divisor of decoding.beam_width ({self.beam_width})",
        )
        _at_least("decoding.diverse_penalty", self.diverse_penalty, 0)
        _at_least("decoding.grounding_beams", self.grounding_beams, 1)
        _at_least("decoding.grounding_gamma", self.grounding_gamma, 0)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """The sharded evaluation of a split."""

    actors: int | None = None
    """Ray Data actors (None: as many as the cluster has room for)."""
    cpus_per_actor: float = 1.0
    """CPUs reserved for each actor; on a GPU cluster each also takes one GPU."""
    shard_size: int = 256
    """Test cases in one predictions file, the unit of resumption."""
    ks: tuple[int, ...] = (1, 5, 10)
    """Cut-offs of HR@K and NDCG@K."""
    also_other_normalizer: bool = True
    """Decode the chosen models with the other normaliser, too."""

    def __post_init__(self) -> None:
        _optional_count("evaluation.actors", self.actors)
        _positive("evaluation.cpus_per_actor", self.cpus_per_actor)
        _at_least("evaluation.shard_size", self.shard_size, 1)
        _require(bool(self.ks) and min(self.ks) >= 1, "evaluation.ks", self.ks, "numbers of at least 1")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run and its evaluation."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


@dataclass(frozen=True, kw_only=True)
class BaselineTrainConfig:
    """The training loop of the text-free baselines."""

    epochs: int = 200
    """Passes over the whole training split, at most."""
    patience: int | None = 20
    """Stop when so many epochs in a row have not raised validation NDCG@10 (None: never)."""
    batch_size: int = 128
    """Windows per optimiser step."""
    lr: float = 1e-3
    """Learning rate of Adam with betas (0.9, 0.98), constant."""
    seed: int = 42
    """Seed of initialisation, order, negatives and dropout."""

    def __post_init__(self) -> None:
        _at_least("train.epochs", self.epochs, 1)
        _optional_count("train.patience", self.patience)
        _at_least("train.batch_size", self.batch_size, 1)
        _positive("train.lr", self.lr)
        _at_least("train.seed", self.seed, 0)


@dataclass(frozen=True, kw_only=True)
class SASRecConfig:
    """SASRec; sizes as in arXiv 2601.22925, the rest as in SASRec's PyTorch port."""

    layers: int = 2
    """Blocks of attention and feed-forward."""
    hidden: int = 64
    """Width of item embeddings and of every layer."""
    heads: int = 1
    """Attention heads; must divide `hidden`."""
    dropout: float = 0.2
    """Dropout on embeddings, attention weights and feed-forward layers."""
    max_history: int = 10
    """Longer histories lose their oldest items."""
    train: BaselineTrainConfig = field(default_factory=BaselineTrainConfig)
    """The training loop."""

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "heads", "max_history"):
            _at_least(name, getattr(self, name), 1)
        _require(self.hidden % self.heads == 0, "heads", self.heads, f"a divisor of hidden ({self.hidden})")
        _require(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON values (tuples become lists)."""
    return typing.cast("dict[str, Any]", json.loads(json.dumps(dataclasses.asdict(config))))


def from_dict(cls: type[C], values: Mapping[str, Any], where: str = "") -> C:
    """Build a config from plain values, the inverse of `to_dict`.

    Raises:
        ConfigError: an unknown field, or a value of the wrong type; the message has the field's full name.
    """
    _require(isinstance(values, Mapping), where or cls.__name__, values, "a mapping of field names to values")
    hints = typing.get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    built: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{where}.{key}" if where else str(key)
        if key not in known:
            raise ConfigError(f"unknown setting {name!r}; known here: {', '.join(sorted(known))}")
        built[key] = _coerce(hints[key], value, name)
    return cls(**built)


def _coerce(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value, name)  # type: ignore[arg-type]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        _require(value in args, name, value, f"one of {', '.join(map(repr, args))}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _coerce(next(a for a in args if a is not type(None)), value, name)
    if origin is tuple:
        _require(isinstance(value, (list, tuple)), name, value, "a list")
        inner = [args[0]] * len(value) if len(args) == 2 and args[1] is Ellipsis else list(args)
        _require(len(inner) == len(value), name, value, f"a list of {len(inner)} values")
        return tuple(_coerce(a, v, name) for a, v in zip(inner, value, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wrong_bool = isinstance(value, bool) and hint is not bool
    _require(isinstance(value, hint) and not wrong_bool, name, value, f"of type {hint.__name__}")
    return value


def override(config: C, changes: Mapping[str, Any]) -> C:
    """A copy with some fields changed, by dotted name: `override(run, {"objective.lam": 0.5})`.

    Raises:
        ConfigError: a name that is not a field, or a value that cannot work. Sweeps call this on every axis
            before anything starts, so a typing error costs seconds and not a night.
    """
    tree = to_dict(config)
    for name, value in changes.items():
        *parents, last = name.split(".")
        node = tree
        for parent in parents:
            child = node.get(parent)
            if not isinstance(child, dict):
                have = ", ".join(sorted(node))
                raise ConfigError(f"unknown setting {name!r}: {parent!r} is not a group; known here: {have}")
            node = child
        if last not in node:
            raise ConfigError(f"unknown setting {name!r}; known here: {', '.join(sorted(node))}")
        node[last] = value
    return from_dict(type(config), tree)


def config_hash(config: Any, length: int = 10) -> str:
    """A short content hash of a config (or of any JSON value): equal settings, equal name."""
    plain = to_dict(config) if dataclasses.is_dataclass(config) else config
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def differences(old: Mapping[str, Any], new: Mapping[str, Any], where: str = "") -> list[str]:
    """What changed between two `to_dict` trees, as lines "train.lr: 0.0001 -> 0.001"."""
    lines: list[str] = []
    for key in sorted({*old, *new}):
        name = f"{where}.{key}" if where else key
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, name)
        elif a != b:
            lines.append(f"{name}: {a!r} -> {b!r}")
    return lines
