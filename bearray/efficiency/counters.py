"""Passes of a model's body, counted and not assumed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass
class Passes:
    """What went through a model's body."""

    forward: int = 0
    """Forward passes, those without gradients among them."""
    backward: int = 0
    """Backward passes."""
    tokens: int = 0
    """Tokens fed, padding included."""
    padding: int = 0
    """Of them, padding: tokens with the padding id."""


@contextmanager
def counting(body: nn.Module, pad_token_id: int) -> Iterator[Passes]:
    """Counts while it lasts.

    A forward pass is a call of `body`; a backward pass is the gradient's arrival at the hidden states that
    such a call returned. A small search step counts as a pass like any other: see the tokens.

    Args:
        body: of a `transformers` causal LM (`model.base_model`).
        pad_token_id: what fills rows up; where it is the end-of-sequence id, that is never fed as a token.
    """
    passes = Passes()

    def arrived(gradient: Tensor) -> None:
        passes.backward += 1

    def called(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        ids = named.get("input_ids", args[0] if args else None)
        passes.forward += 1
        if ids is not None:
            passes.tokens += ids.numel()
            passes.padding += int((ids == pad_token_id).sum())
        hidden = output[0]
        if hidden.requires_grad:
            hidden.register_hook(arrived)

    handle = body.register_forward_hook(called, with_kwargs=True)
    try:
        yield passes
    finally:
        handle.remove()
