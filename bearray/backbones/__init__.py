"""Backbones: how a window becomes a language model's input, and which language model that is.

`bigrec` writes prompts and answers as tokens; `load` opens a base model; `lora` puts an adapter on it;
`presets` and `resolve` know names; `tiny` builds a small stand-in where no pre-trained model is at hand.
"""

from bearray.backbones.presets import PRESETS, base_model_kind
from bearray.backbones.resolve import resolve_base

__all__ = ["PRESETS", "base_model_kind", "resolve_base"]
