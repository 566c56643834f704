"""What is read and which model reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bearray.config.baselines import SASRecConfig
from bearray.config.checks import at_least, optional_count, positive, require

BackboneName = Literal["bigrec", "llara", "allmrec"]


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
            optional_count(f"data.{name}", getattr(self, name))
        if self.domain_words is not None:
            require(
                len(self.domain_words) == 3 and all(self.domain_words),
                "data.domain_words",
                self.domain_words,
                "three words: plural, past participle, singular",
            )


@dataclass(frozen=True, kw_only=True)
class SoftTokenConfig:
    """The vectors in prompts; for the backbones that have some, and ignored by others."""

    curriculum: bool = True
    """LLaRA: begin with prompts of words only, and take up hybrid ones by and by."""
    text_encoder: str | None = None
    """A-LLMRec: a sentence encoder, folder or hub id, whose mean-pooled vectors of titles items are aligned
    with (None: the base model's own)."""
    align_epochs: int = 10
    """A-LLMRec: epochs of stage 1."""
    sasrec: SASRecConfig = field(default_factory=SASRecConfig)
    """Where the vectors come from."""

    def __post_init__(self) -> None:
        at_least("model.soft.align_epochs", self.align_epochs, 1)
        require(
            self.text_encoder is None or bool(self.text_encoder),
            "model.soft.text_encoder",
            self.text_encoder,
            "a folder or hub id, or None",
        )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The base model and its adapter."""

    base: str = "llama-3.2-3b"
    """A preset, a hub id, a folder, or local:tiny|small|medium (built from the training split)."""
    backbone: BackboneName = "bigrec"
    """How a window becomes the model's input: words only (bigrec), or words and vectors of items (llara), and
    of users, too (allmrec)."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Weights' type; auto is bfloat16 on GPU and float32 on CPU."""
    lora_r: int = 8
    """Rank of the LoRA adapter; 0 trains the projectors of llara and allmrec only."""
    lora_alpha: float = 16.0
    """LoRA scaling numerator."""
    lora_dropout: float = 0.05
    """Dropout on the adapter's input."""
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj")
    """Linear layers that get an adapter."""
    max_prompt_tokens: int | None = 1024
    """Longer prompts lose their oldest items (None: no limit)."""
    soft: SoftTokenConfig = field(default_factory=SoftTokenConfig)
    """The vectors of llara and allmrec."""

    def __post_init__(self) -> None:
        require(bool(self.base), "model.base", self.base, "a preset, hub id, folder or local:SIZE")
        at_least("model.lora_r", self.lora_r, 1 if self.backbone == "bigrec" else 0)
        positive("model.lora_alpha", self.lora_alpha)
        require(0 <= self.lora_dropout < 1, "model.lora_dropout", self.lora_dropout, "in [0, 1)")
        require(bool(self.lora_targets), "model.lora_targets", self.lora_targets, "at least one layer name")
        require(
            self.max_prompt_tokens is None or self.max_prompt_tokens >= 32,
            "model.max_prompt_tokens",
            self.max_prompt_tokens,
            "None or at least 32",
        )
