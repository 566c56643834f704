"""The backbones by name."""

from __future__ import annotations

from collections.abc import Callable

from bearray.backbones.allmrec import ALLMRec
from bearray.backbones.base import Backbone
from bearray.backbones.bigrec import BigRec
from bearray.backbones.llara import LLaRA

BACKBONES: dict[str, Callable[..., Backbone]] = {kind.name: kind for kind in (BigRec, LLaRA, ALLMRec)}
"""What `model.backbone` names; called with (tokenizer, template, max_prompt_tokens=...)."""
