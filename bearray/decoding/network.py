"""A causal language model taken apart for decoding: the body, the output projection, and what its masks look
like.

Works on Hugging Face models, plain or wrapped by PEFT or DDP. Nothing here is copied or changed: adapters
stay active because their layers sit inside the body.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bearray.decoding.cache import SlotCache
from bearray.errors import ModelError
from bearray.packed_queries import PackedQueries
from bearray.tree_attention import TREE_ATTENTION

_MASKED_ATTENTION = ("sdpa", TREE_ATTENTION, "eager")
_WINDOWED = (
    "mistral",
    "mixtral",
    "phi3",
    "starcoder2",
)  # one sliding window for all layers, no `layer_types`


@dataclass(frozen=True, eq=False)
class Network:
    """What the decoders need of a model. Build it with `open_network`."""

    body: nn.Module
    head: nn.Module
    eos_token_id: int
    attention: str
    """"sdpa" or tree attention (boolean masks), or "eager" (additive masks)."""
    window: int | None
    """Sliding attention window in tokens, of the layers that have one."""
    mixed_layers: bool
    """Some layers have the window and some do not: the body takes one mask a kind."""
    logit_softcap: float | None
    logit_divisor: float

    @property
    def device(self) -> torch.device:
        return self.body.get_input_embeddings().weight.device  # type: ignore[operator]

    @property
    def dtype(self) -> torch.dtype:
        """The activations' type."""
        return self.body.get_input_embeddings().weight.dtype  # type: ignore[operator]

    def mask(self, visible: Tensor, distance: Tensor | None, dtype: torch.dtype) -> Any:
        """The body's attention mask.

        Args:
            visible: [U, Q, S] bool, which slots each query may look at.
            distance: [U, Q, S] position of the query minus position of the slot; needed only with a window.
            dtype: the type of the activations.
        """
        if self.window is None:
            return self._native(visible, dtype)
        assert distance is not None
        near = self._native(visible & (distance < self.window), dtype)
        if not self.mixed_layers:
            return near
        return {"full_attention": self._native(visible, dtype), "sliding_attention": near}

    def _native(self, visible: Tensor, dtype: torch.dtype) -> Tensor:
        mask = visible[:, None]
        if self.attention != "eager":
            return mask
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(
            ~mask, torch.finfo(dtype).min
        )

    def run(self, ids: Tensor, positions: Tensor, mask: Any, cache: SlotCache) -> Tensor:
        """Hidden states [U, Q, D] after the last norm of the tokens `ids` [U, Q], whose keys are added to
        the cache.
        """
        return self._states(ids, positions, mask, cache)

    def run_some(self, ids: Tensor, positions: Tensor, mask: Any, cache: SlotCache, real: Tensor) -> Tensor:
        """As `run`, of the tokens that are `real` [U, Q]: their states [M, D], row by row. The keys of the
        others are anything. Where the model's attention can, the others are not computed.
        """
        if self.attention != TREE_ATTENTION:
            return self.run(ids, positions, mask, cache)[real]
        packed = PackedQueries.of(real)
        cache.pack(packed)
        try:
            ids, positions = packed.pick(ids)[None], packed.pick(positions)[None]
            return self._states(ids, positions, mask, cache, packed_queries=packed)[0]
        finally:
            cache.pack(None)

    def _states(self, ids: Tensor, positions: Tensor, mask: Any, cache: SlotCache, **options: Any) -> Tensor:
        return self.body(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **options,
        ).last_hidden_state

    def logits(self, hidden: Tensor, tokens: Tensor | None = None) -> Tensor:
        """float32 logits: of the whole vocabulary, [N, V], or, with `tokens` [K], of those rows only, [N,
        K].
        """
        if tokens is None:
            return self._finish(self.head(hidden))
        return self._finish(nn.functional.linear(hidden, self._weight[tokens], self._bias_of(tokens)))

    def paired_logits(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """float32 logits of token i of `tokens` [N] under hidden state i of `hidden` [N, D]: [N]."""
        logit = (hidden.float() * self._weight[tokens].float()).sum(-1).to(hidden.dtype)
        bias = self._bias_of(tokens)
        return self._finish(logit if bias is None else logit + bias)

    @property
    def has_plain_head(self) -> bool:
        """The output projection is a plain matrix at hand, so that single rows of it can be used."""
        weight = getattr(self.head, "weight", None)
        return type(self.head) is nn.Linear and isinstance(weight, Tensor) and not hasattr(weight, "ds_id")

    @property
    def _weight(self) -> Tensor:
        return self.head.weight  # type: ignore[return-value]

    def _bias_of(self, tokens: Tensor) -> Tensor | None:
        bias = getattr(self.head, "bias", None)
        return None if bias is None else bias[tokens]

    def _finish(self, logits: Tensor) -> Tensor:
        if self.logit_divisor != 1.0:
            logits = logits / self.logit_divisor
        if self.logit_softcap is not None:
            logits = torch.tanh(logits / self.logit_softcap) * self.logit_softcap
        return logits.float()


def open_network(model: nn.Module, eos_token_id: int | None = None) -> Network:
    """Take a causal language model apart.

    Args:
        model: a `transformers` causal LM; PEFT (LoRA and alike), DDP and DeepSpeed wrappers are looked
            through.
        eos_token_id: the token that ends a title; by default the model's own, as `generate` would use it.
            Where the configuration lists several, the first: a title ends in one way only.

    Raises:
        ModelError: not a causal LM, no end-of-sequence token, a prompt-learning adapter, or an attention
            implementation that takes no custom masks.
    """
    causal = model
    while not hasattr(causal, "get_base_model") and isinstance(getattr(causal, "module", None), nn.Module):
        causal = causal.module  # type: ignore[assignment]
    if hasattr(causal, "get_base_model"):
        adapter = getattr(causal, "active_peft_config", None)
        if getattr(adapter, "is_prompt_learning", False):
            raise ModelError(
                "prompt-learning adapters are not supported by the decoders; use LoRA or a full model"
            )
        causal = causal.get_base_model()  # type: ignore[operator]
    config = getattr(causal, "config", None)
    body = getattr(causal, "base_model", None)
    head = causal.get_output_embeddings() if hasattr(causal, "get_output_embeddings") else None  # type: ignore[operator]
    if config is None or head is None or not isinstance(body, nn.Module) or body is causal:
        raise ModelError(
            f"{type(model).__name__} is not a transformers causal language model with an output projection"
        )
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{type(causal).__name__} is an encoder-decoder model; the decoders need a decoder-only one"
        )
    attention = getattr(config, "_attn_implementation", None)
    if attention not in _MASKED_ATTENTION:
        raise ModelError(
            f"the model's attention implementation is {attention!r}, which takes no custom masks; "
            f'load it with attn_implementation="sdpa"'
        )
    window, mixed = _window(config)
    return Network(
        body=body,
        head=head,
        eos_token_id=_eos(causal, config) if eos_token_id is None else eos_token_id,
        attention=str(attention),
        window=window,
        mixed_layers=mixed,
        logit_softcap=getattr(config, "final_logit_softcapping", None),
        logit_divisor=float(getattr(config, "logits_scaling", 1.0) or 1.0),
    )


def _eos(causal: nn.Module, config: Any) -> int:
    eos = getattr(config, "eos_token_id", None)
    if eos is None:
        eos = getattr(getattr(causal, "generation_config", None), "eos_token_id", None)
    if isinstance(eos, (list, tuple)):
        eos = eos[0] if eos else None
    if eos is None:
        raise ModelError(
            "the model's config has no eos_token_id; set model.config.eos_token_id or pass eos_token_id"
        )
    return int(eos)


def _window(config: Any) -> tuple[int | None, bool]:
    """(sliding window or None, whether only some layers have it)."""
    kinds = set(getattr(config, "layer_types", None) or ())
    if unknown := kinds - {"full_attention", "sliding_attention"}:
        raise ModelError(
            f"the model has layers of kind {', '.join(sorted(unknown))}, which the decoders do not support"
        )
    window = getattr(config, "sliding_window", None)
    if kinds:
        return (window, True) if "sliding_attention" in kinds else (None, False)
    return (window, False) if window and config.model_type in _WINDOWED else (None, False)


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """No dropout inside; afterwards every part is back in the mode it was in."""
    training = [m for m in module.modules() if m.training]
    for m in training:  # as `eval()` does, which would look through all of them again
        m.training = False
    try:
        yield
    finally:
        for m in training:
            m.training = True


@contextmanager
def decoding_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module is back in the mode it was in."""
    with evaluation_mode(model), torch.inference_mode():
        yield
