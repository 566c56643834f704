"""Vectors of texts for stage 1 of A-LLMRec: the base model's, or a sentence encoder's.

Both are means of the last hidden states over a text's tokens, which for sentence encoders of the
sentence-transformers family is how they were trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bearray.backbones.presets import is_folder
from bearray.decoding.network import decoding_mode, open_network
from bearray.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_AT_A_TIME = 64
_LONGEST = 128
"""Tokens of a title that a sentence encoder reads at most."""


def by_language_model(model: nn.Module, tokens: Sequence[Sequence[int]]) -> Tensor:
    """[T, H] float32 on the CPU, of texts as tokens; an adapter on the model stays on.

    Args:
        model: a causal LM.
        tokens: of each text, at least one.
    """
    body = open_network(model, eos_token_id=0).body

    def hidden(ids: Tensor, mask: Tensor) -> Tensor:
        # Padded on the right, where no real token looks: the causal mask is all that is needed.
        states: Tensor = body(input_ids=ids, use_cache=False).last_hidden_state
        return states

    with decoding_mode(model):
        return _means(hidden, tokens, pad=0, device=open_network(model, eos_token_id=0).device)


def by_sentence_encoder(encoder: str, texts: Sequence[str], device: torch.device) -> Tensor:
    """[T, H] float32 on the CPU.

    Args:
        encoder: folder or hub id of a `transformers` encoder with safetensors weights; no code that comes
            with it is run.
        texts: the texts.
        device: where it works.

    Raises:
        ModelError: it cannot be opened.
    """
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(encoder, trust_remote_code=False)
        model: Any = AutoModel.from_pretrained(
            encoder, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        )
    except Exception as error:  # transformers, huggingface_hub and tokenizers raise a dozen kinds
        kind = "folder" if is_folder(encoder) else "hub id"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"model.soft.text_encoder: the sentence encoder of {kind} {encoder!r} cannot be opened: {reason}"
        ) from error
    model = model.to(device).eval()
    tokens = tokenizer(list(texts), truncation=True, max_length=_LONGEST, verbose=False)["input_ids"]

    def hidden(ids: Tensor, mask: Tensor) -> Tensor:
        states: Tensor = model(input_ids=ids, attention_mask=mask).last_hidden_state
        return states

    with torch.inference_mode():
        return _means(hidden, tokens, pad=tokenizer.pad_token_id or 0, device=device)


def _means(hidden: Any, tokens: Sequence[Sequence[int]], *, pad: int, device: torch.device) -> Tensor:
    """[T, H] mean over each text's tokens of what `hidden` makes of padded ids and mask [batch, longest]."""
    lengths = torch.tensor([len(own) for own in tokens])
    found: list[Tensor] = [torch.empty(0)] * len(tokens)
    for rows in torch.argsort(lengths, descending=True, stable=True).split(_AT_A_TIME):
        ids = torch.full((len(rows), int(lengths[rows[0]])), pad)
        for place, row in enumerate(rows.tolist()):
            ids[place, : lengths[row]] = torch.tensor(list(tokens[row]))
        mask = (torch.arange(ids.shape[1]) < lengths[rows][:, None]).to(device)
        states = hidden(ids.to(device), mask.long()).float()
        means = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        for row, mean in zip(rows.tolist(), means.cpu(), strict=True):
            found[row] = mean
    return torch.stack(found).clone()  # out of inference mode
