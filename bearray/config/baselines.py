"""Settings of the text-free baselines."""

from __future__ import annotations

from dataclasses import dataclass, field

from bearray.config.checks import at_least, optional_count, positive, require


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
        at_least("train.epochs", self.epochs, 1)
        optional_count("train.patience", self.patience)
        at_least("train.batch_size", self.batch_size, 1)
        positive("train.lr", self.lr)
        at_least("train.seed", self.seed, 0)


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
            at_least(name, getattr(self, name), 1)
        require(self.hidden % self.heads == 0, "heads", self.heads, f"a divisor of hidden ({self.hidden})")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")
