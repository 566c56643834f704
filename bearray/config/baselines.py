"""Settings of the baselines: one class each, over one class for the loop that trains them all."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from bearray.config.checks import at_least, optional_count, positive, require


@dataclass(frozen=True, kw_only=True)
class BaselineTrainConfig:
    """The training loop of the baselines."""

    epochs: int = 200
    """Passes over the whole training split, at most."""
    patience: int | None = 20
    """Stop when so many epochs in a row have not raised validation NDCG@10 (None: never)."""
    batch_size: int = 128
    """Windows per optimiser step."""
    lr: float = 1e-3
    """Learning rate of Adam with betas (0.9, 0.98), constant."""
    weight_decay: float = 0.0
    """Adam's L2 penalty on all weights."""
    seed: int = 42
    """Seed of initialisation, order, negatives and dropout."""
    num_workers: int = 1
    """Ray Train workers, which share each batch; on GPU one GPU each. One is enough for models so small."""

    def __post_init__(self) -> None:
        at_least("train.epochs", self.epochs, 1)
        optional_count("train.patience", self.patience)
        at_least("train.batch_size", self.batch_size, 1)
        positive("train.lr", self.lr)
        at_least("train.weight_decay", self.weight_decay, 0)
        at_least("train.seed", self.seed, 0)
        at_least("train.num_workers", self.num_workers, 1)
        require(
            self.batch_size >= self.num_workers,
            "train.batch_size",
            self.batch_size,
            f"at least train.num_workers ({self.num_workers})",
        )


@dataclass(frozen=True, kw_only=True)
class BaselineConfig:
    """What every baseline has; sizes as in arXiv 2601.22925."""

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
            at_least(name, getattr(self, name), 1)
        require(self.hidden % self.heads == 0, "heads", self.heads, f"a divisor of hidden ({self.hidden})")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class SASRecConfig(BaselineConfig):
    """SASRec; what the paper does not say is as in SASRec's PyTorch port."""


@dataclass(frozen=True, kw_only=True)
class BERT4RecConfig(BaselineConfig):
    """BERT4Rec; what the paper does not say is as in BERT4Rec's code."""

    heads: int = 2
    """Attention heads; must divide `hidden`."""
    mask_ratio: float = 0.2
    """Share of places that are masked (published: 0.2 to 0.6, by data set)."""
    last_share: float = 0.1
    """Share of training windows in which the last place alone is masked, as it is when a title is asked
    for."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.mask_ratio < 1, "mask_ratio", self.mask_ratio, "above 0 and below 1")
        require(0 <= self.last_share <= 1, "last_share", self.last_share, "in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class DROSConfig(BaselineConfig):
    """DROS on SASRec; weights of the robust term as in its port by the authors of arXiv 2601.22925."""

    dropout: float = 0.1
    """Dropout on embeddings, attention weights and feed-forward layers."""
    alpha: float = 0.1
    """Weight of the robust term (released default: 0, which is off)."""
    beta: float = 0.5
    """Robust radius, the paper's beta_0 (released default: 1)."""
    gamma: float = 0.05
    """Exponent of the titles' frequencies in the nominal distribution."""
    form: Literal["equation", "released"] = "equation"
    """The paper's robust term, or that of its code, which differs in three ways (docs/baselines.md)."""
    train: BaselineTrainConfig = field(default_factory=lambda: BaselineTrainConfig(weight_decay=1e-6))
    """The training loop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("alpha", self.alpha, 0)
        positive("beta", self.beta)
        at_least("gamma", self.gamma, 0)


@dataclass(frozen=True, kw_only=True)
class DLLM2RecConfig(DROSConfig):
    """DLLM2Rec: SASRec with DROS, taught by a language model; weights as in its code."""

    alpha: float = 1.0
    """Weight of the robust term (published: 0.5 or 1, by data set; 0 leaves it out)."""
    beta: float = 1.0
    """Robust radius, the paper's beta_0."""
    text_weight: float = 0.2
    """What the projected vector of a title's text adds to its embedding (published: 0.2 or 0.3)."""
    distill: float = 0.8
    """Weight of the ranking distillation (published: 0.7 or 0.8)."""
    teacher_titles: int = 10
    """Titles of the teacher's list for each training window."""
    by_rank: float = 0.3
    """Weight of the place in the teacher's list."""
    by_confidence: float = 0.5
    """Weight of the teacher's confidence: how near the title is to what it wrote."""
    by_agreement: float = 0.1
    """Weight of the student's having the title in its own list."""
    train: BaselineTrainConfig = field(default_factory=BaselineTrainConfig)
    """The training loop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("teacher_titles", self.teacher_titles, 1)
        for name in ("text_weight", "distill", "by_rank", "by_confidence", "by_agreement"):
            at_least(name, getattr(self, name), 0)
        total = self.by_rank + self.by_confidence
        require(
            total > 0, "by_rank + by_confidence", total, "above 0: weights that can all be 0 weigh nothing"
        )


@dataclass(frozen=True, kw_only=True)
class LLMCFConfig(BaselineConfig):
    """LLM-CF on SASRec: chains of thought of a language model as examples in context."""

    heads: int = 2
    """Attention heads; must divide `hidden`."""
    context_weight: float = 0.1
    """What the examples' state adds to the user's vector."""
    context_layers: int = 2
    """Blocks of the network that reads the examples."""
    context_heads: int = 2
    """Its attention heads; must divide `hidden`."""
    examples_each: int = 2
    """Examples of a liked title, and of one that is not, for each window."""
    negatives: int = 128
    """Titles in the softmax beside the target, the same for a whole batch."""
    reconstruction: float = 0.0
    """Weight of 1 - cosine between a chain of thought and what is predicted of it (0 in the published
    settings)."""
    chains: int = 2_000
    """Training windows that the language model writes a chain of thought about, half of them for a title that
    the user has not seen (published: 10,000)."""
    chain_tokens: int = 128
    """Longest chain of thought, in tokens (published: 256)."""
    train: BaselineTrainConfig = field(default_factory=lambda: BaselineTrainConfig(weight_decay=1e-5))
    """The training loop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("context_layers", "context_heads", "examples_each", "negatives", "chain_tokens"):
            at_least(name, getattr(self, name), 1)
        at_least("chains", self.chains, 2)
        at_least("reconstruction", self.reconstruction, 0)
        require(math.isfinite(self.context_weight), "context_weight", self.context_weight, "finite")
        require(
            self.hidden % self.context_heads == 0,
            "context_heads",
            self.context_heads,
            f"a divisor of hidden ({self.hidden})",
        )


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """Which language model helps a baseline, and how its work is done."""

    base_model: str = "llama-3.2-3b"
    """A preset, a hub id, a folder, or local:tiny|small|medium (built from the training split)."""
    teacher: str | None = None
    """Run folder of a trained LLM recommender whose lists DLLM2Rec learns; its own base model then, whatever
    base_model says (None: the base model as it is)."""
    beams: int = 4
    """DLLM2Rec: beams of the teacher's unconstrained search, whose best text is grounded (BIGRec's
    number)."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Weights' type; auto is bfloat16 on GPU and float32 on CPU."""
    actors: int | None = None
    """Ray Data actors (None: as many as the cluster has room for)."""
    shard_size: int = 256
    """Rows in one file, the unit of resumption."""
    kept_in: str | None = None
    """Folder or URI where what it has said is kept, to be reached from all machines of the cluster (None:
    $BEARRAY_CACHE/llm or ~/.cache/bearray/llm)."""

    def __post_init__(self) -> None:
        require(
            bool(self.base_model), "base_model", self.base_model, "a preset, hub id, folder or local:SIZE"
        )
        at_least("beams", self.beams, 1)
        optional_count("actors", self.actors)
        at_least("shard_size", self.shard_size, 1)
