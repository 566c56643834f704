"""Sizes of base models: as transformers builds them, and as PyTorch counts their work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    Gemma2Config,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from bearray.backbones import PRESETS
from bearray.config import ModelConfig
from bearray.errors import ModelError
from bearray.planning.shapes import SHAPES, Shape, shape_of

BUILT = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}
PUBLISHED = {"qwen2.5-0.5b": 494_032_768, "llama-3.2-1b": 1_235_814_400, "qwen3-8b": 8_190_735_360}
"""Weights that the hub counts."""


def config_of(shape: Shape, **changes: Any) -> Any:
    family = "qwen2" if shape.biases else "qwen3" if shape.head_norms else "llama"
    return BUILT[family][0](
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        **changes,
    )


def built(shape: Shape, **changes: Any) -> Any:
    config = config_of(shape, **changes)
    return BUILT[config.model_type][1](config)


def test_every_preset_has_a_shape() -> None:
    assert set(SHAPES) == set(PRESETS)
    assert {name: SHAPES[name].weights for name in PUBLISHED} == PUBLISHED


@pytest.mark.parametrize("shape", SHAPES.values(), ids=lambda shape: shape.name)
def test_weights_are_those_of_transformers(shape: Shape) -> None:
    with torch.device("meta"):
        model = built(shape)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    assert sum(sizes.values()) == shape.weights
    small = ("norm", "bias", "embed", "lm_head")
    assert sum(size for name, size in sizes.items() if not any(s in name for s in small)) == shape.body


@pytest.mark.parametrize("preset", ["llama-3.2-1b", "qwen2.5-0.5b", "qwen3-1.7b"])
def test_the_adapter_and_the_work_of_a_pass_are_those_counted(preset: str) -> None:
    """On a small model of the family: LoRA's weights as PEFT makes them, FLOPs as PyTorch counts them,
    without what causality saves."""
    family = SHAPES[preset]
    small = Shape("small", 64, 96, 2, 4, 2, 16, 128, True, family.biases, family.head_norms)
    model = built(small, attn_implementation="eager")
    ids = torch.zeros((1, 24), dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids)
    assert counter.get_total_flops() == small.forward(24, 24) + small.head(24)
    for targets in (ModelConfig().lora_targets, tuple(small.linears)):
        adapted = get_peft_model(built(small), LoraConfig(r=8, target_modules=list(targets)))
        trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
        assert trained == small.adapter(8, targets)


@pytest.mark.parametrize("preset", ["llama-3-8b", "qwen2.5-7b", "qwen3-4b"])
def test_a_folder_says_the_same_as_the_preset(preset: str, tmp_path: Path) -> None:
    config_of(SHAPES[preset]).save_pretrained(tmp_path)
    found = shape_of(str(tmp_path))
    assert found == Shape(**{**vars(SHAPES[preset]), "name": tmp_path.name})
    assert shape_of(PRESETS[preset]) == shape_of(preset.upper()) == SHAPES[preset]


def test_stand_ins_are_known_by_their_size() -> None:
    tiny = shape_of("local:tiny")
    assert (tiny.hidden, tiny.layers, tiny.vocabulary) == (128, 4, 2048)
    with pytest.raises(ModelError, match="huge"):
        shape_of("local:huge")


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist; give a model's folder"):
        shape_of(str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match=r"has no config\.json"):
        shape_of(str(tmp_path))
    Gemma2Config().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"type .gemma2.*known are llama"):
        shape_of(str(tmp_path))
    with pytest.raises(ModelError, match=r"lora_targets has c_attn.*q_proj"):
        SHAPES["llama-3-8b"].adapter(8, ["c_attn"])
