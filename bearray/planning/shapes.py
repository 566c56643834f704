"""The sizes of a base model, which say what it takes in memory and work; of presets without opening any file.

Known are models whose layers are built as Llama's: attention with grouped keys, a gated MLP, two norms.
Qwen2 adds biases to queries, keys and values, Qwen3 norms of each head's queries and keys.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bearray.backbones.presets import LOCAL_PREFIX, PRESETS, expand_preset, is_folder
from bearray.errors import ModelError

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""`model_type` of the models whose layers are known."""


@dataclass(frozen=True)
class Shape:
    """A decoder's sizes, as in its config.json."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    """The output projection is the input embedding."""
    biases: bool = False
    """Queries, keys and values have biases (Qwen2)."""
    head_norms: bool = False
    """Each head's queries and keys are normalised (Qwen3)."""

    @property
    def queries(self) -> int:
        """Numbers of a token's queries in a layer."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Numbers of a token's keys in a layer, and of its values."""
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Width in and out of a layer's linear parts, by the names that LoRA's targets have."""
        return {
            "q_proj": (self.hidden, self.queries),
            "k_proj": (self.hidden, self.keys),
            "v_proj": (self.hidden, self.keys),
            "o_proj": (self.queries, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def body(self) -> int:
        """Weights that every token is multiplied with: those of attention and MLP."""
        return self.layers * sum(wide * out for wide, out in self.linears.values())

    @property
    def embedding(self) -> int:
        """Weights of the input embedding, and of the output projection."""
        return self.hidden * self.vocabulary

    @property
    def weights(self) -> int:
        """All weights, norms and biases among them."""
        small = 2 * self.hidden + self.biases * (self.queries + 2 * self.keys)
        small += self.head_norms * 2 * self.head_dim
        return self.body + self.layers * small + self.hidden + self.embedding * (1 if self.tied else 2)

    @property
    def cache_numbers(self) -> int:
        """Numbers of a token's keys and values in all layers."""
        return 2 * self.layers * self.keys

    def adapter(self, rank: int, targets: Collection[str]) -> int:
        """Weights of a LoRA adapter.

        Raises:
            ModelError: a target that the model does not have.
        """
        unknown = sorted(set(targets) - set(self.linears))
        if unknown:
            raise ModelError(
                f"model.lora_targets has {', '.join(unknown)}; {self.name} has {', '.join(self.linears)}"
            )
        return self.layers * rank * sum(sum(self.linears[name]) for name in targets)

    def attention(self, tokens: float, context: float) -> float:
        """FLOPs of the two products of `tokens` queries with `context` keys and values on average."""
        return 4 * self.layers * self.queries * tokens * context

    def forward(self, tokens: float, context: float) -> float:
        """FLOPs of a forward pass without the output projection."""
        return 2 * self.body * tokens + self.attention(tokens, context)

    def head(self, positions: float) -> float:
        """FLOPs of the output projection at so many positions."""
        return 2 * positions * self.embedding


SHAPES = {
    "llama-3.2-1b": Shape("Llama-3.2-1B", 2048, 8192, 16, 32, 8, 64, 128_256, True),
    "llama-3.2-3b": Shape("Llama-3.2-3B", 3072, 8192, 28, 24, 8, 128, 128_256, True),
    "llama-3-8b": Shape("Llama-3-8B", 4096, 14336, 32, 32, 8, 128, 128_256, False),
    "qwen2.5-0.5b": Shape("Qwen2.5-0.5B", 896, 4864, 24, 14, 2, 64, 151_936, True, biases=True),
    "qwen2.5-1.5b": Shape("Qwen2.5-1.5B", 1536, 8960, 28, 12, 2, 128, 151_936, True, biases=True),
    "qwen2.5-3b": Shape("Qwen2.5-3B", 2048, 11008, 36, 16, 2, 128, 151_936, True, biases=True),
    "qwen2.5-7b": Shape("Qwen2.5-7B", 3584, 18944, 28, 28, 4, 128, 152_064, False, biases=True),
    "qwen3-1.7b": Shape("Qwen3-1.7B", 2048, 6144, 28, 16, 8, 128, 151_936, True, head_norms=True),
    "qwen3-4b": Shape("Qwen3-4B", 2560, 9728, 36, 32, 8, 128, 151_936, True, head_norms=True),
    "qwen3-8b": Shape("Qwen3-8B", 4096, 12288, 36, 32, 8, 128, 151_936, False, head_norms=True),
}
"""By preset, from the config.json that each model is published with."""


def shape_of(base: str) -> Shape:
    """The sizes of a base model.

    Args:
        base: a preset or its hub id, a folder with config.json, `local:SIZE`, or another hub id, which is
            asked for its config.json (or the cache of earlier downloads).

    Raises:
        ModelError: no such folder or hub id, or a model that is not built as those that are known.
    """
    if base.startswith(LOCAL_PREFIX):
        return _stand_in(base)
    name = expand_preset(base)
    known = {hub: preset for preset, hub in PRESETS.items()}
    if name in known:
        return SHAPES[known[name]]
    return _from_config(_config(base, name), Path(name).name or base)


def _stand_in(base: str) -> Shape:
    from bearray.backbones.tiny import base_size

    size = base_size(base.removeprefix(LOCAL_PREFIX))
    return Shape(
        base, size.hidden, size.intermediate, size.layers, size.heads, size.kv_heads,
        size.hidden // size.heads, size.vocab_size, True,
    )  # fmt: skip


def _config(base: str, name: str) -> Any:
    from transformers import AutoConfig

    if is_folder(name) and not (Path(name) / "config.json").is_file():
        what = "has no config.json" if Path(name).is_dir() else "does not exist"
        raise ModelError(f"base model folder {name} {what}; give a model's folder, or one of {_presets()}")
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # transformers and huggingface_hub raise a dozen kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"the sizes of base model {base!r} are not known: {reason}\nPresets need no file: {_presets()}; "
            "of other models give a folder with their config.json"
        ) from error


def _from_config(config: Any, name: str) -> Shape:
    if config.model_type not in FAMILIES:
        raise ModelError(
            f"base model {name} is of type {config.model_type!r}, whose memory is not known; known are "
            f"{', '.join(FAMILIES)}"
        )
    heads = config.num_attention_heads
    return Shape(
        name=name,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        layers=config.num_hidden_layers,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        vocabulary=config.vocab_size,
        tied=bool(config.tie_word_embeddings),
        biases=config.model_type == "qwen2",
        head_norms=config.model_type == "qwen3",
    )


def _presets() -> str:
    return ", ".join(PRESETS)
