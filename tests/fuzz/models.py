"""A model of a few hundred parameters, with an adapter, a checkpoint and a tokenizer on disk."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch


@lru_cache(maxsize=1)
def _model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


def micro_model() -> Any:
    """A fresh copy each time."""
    return copy.deepcopy(_model())


def save_micro_base(folder: Path) -> None:
    """Weights, config and tokenizer, as `bearray base-model build` leaves them."""
    from bearray.backbones.bpe import train_tokenizer

    micro_model().save_pretrained(folder)
    train_tokenizer(["Red Fox", "Blue Whale", "Red Panda"] * 3, 290).save_pretrained(folder)


def _parts() -> tuple[Any, Any, Any]:
    """(model with an adapter and its reference, engine, objective)."""
    from bearray.backbones.lora import add_lora
    from bearray.backbones.reference import add_reference
    from bearray.config import ModelConfig, ObjectiveConfig, TrainConfig
    from bearray.objectives import make_objective
    from bearray.training.engine import make_engine

    model = add_lora(micro_model(), ModelConfig(lora_r=2))
    add_reference(model)
    engine = make_engine(model, TrainConfig(engine="ddp"), rounds=1, device=torch.device("cpu"))
    return model, engine, make_objective(ObjectiveConfig(name="msl", adaptive=True))


def save_micro_checkpoint(folder: Path) -> None:
    """After one update, so that the optimiser has moments."""
    import numpy as np

    from bearray.negatives import KeptAnswers
    from bearray.training.checkpoint import save_checkpoint

    model, engine, objective = _parts()
    engine.backward(model(torch.tensor([[3, 4, 5]])).logits.square().sum(), last=True)
    engine.step(1e-3)
    kept = KeptAnswers(np.arange(3), np.ones((3, 2), np.int64), np.zeros((3, 2), np.float32))
    save_checkpoint(folder, model, engine, objective, epoch=1, rank=0, answers=kept)


def restore_micro_checkpoint(folder: Path) -> None:
    """Restore, and take a step, so that a state which only looks right shows."""
    from bearray.training.checkpoint import load_answers, restore_checkpoint

    model, engine, objective = _parts()
    assert restore_checkpoint(folder, model, engine, objective) >= 0
    engine.backward(model(torch.tensor([[3, 4, 5]])).logits.square().sum(), last=True)
    engine.step(1e-3)
    kept = load_answers(folder)
    if kept is not None:
        kept.drawn([int(kept.rows[0])] if len(kept.rows) else [])
