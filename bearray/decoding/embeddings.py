"""Texts as vectors: the base model's last hidden state at a text's last token, as BIGRec grounds titles.

"Base" means without the adapter, so the vectors of a catalogue hold for every adapter of a model. An adapter
that was merged into the weights cannot be taken off again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bearray.decoding.network import decoding_mode, open_network
from bearray.errors import ConfigError, DataError
from bearray.trie import TokenTrie


@dataclass(frozen=True, eq=False)
class TitleEmbeddings:
    """One vector for each title of a trie. Made by `embed_titles`, once for a base model and a catalogue."""

    vectors: Tensor
    """[titles, D] in the model's type, on its device; rows of titles that equal an earlier one hold zeros."""
    nodes: Tensor
    """[titles] trie node at which each title ends; -1 for one that equals an earlier one."""
    prefix: tuple[int, ...]
    """Tokens that were put before each title."""


def embed_titles(
    model: nn.Module, trie: TokenTrie, *, prefix: Sequence[int] = (), batch_size: int = 64
) -> TitleEmbeddings:
    """Embed all titles of a trie.

    Args:
        model: a `transformers` causal LM, plain or with a PEFT adapter, which is off meanwhile.
        trie: the titles as tokens.
        prefix: tokens before each title, such as BOS where the model was trained with it.
        batch_size: titles at a time.

    Raises:
        ConfigError, DataError, ModelError: as `embed_texts`.
    """
    trie = trie.to(open_network(model).device)
    ends = (trie.terminal >= 0).nonzero()[:, 0]
    titles = trie.terminal[ends].long()
    found = embed_texts(model, trie.sequences_at(ends), prefix=prefix, batch_size=batch_size)
    vectors = found.new_zeros((trie.num_sequences, found.shape[1]))
    vectors[titles] = found
    nodes = torch.full((trie.num_sequences,), -1, dtype=torch.long, device=trie.device)
    nodes[titles] = ends
    return TitleEmbeddings(vectors, nodes, tuple(prefix))


def embed_texts(
    model: nn.Module, texts: Sequence[Sequence[int]], *, prefix: Sequence[int] = (), batch_size: int = 64
) -> Tensor:
    """[N, D] vectors of N token lists, on the model's device and in its type; arguments as `embed_titles`.

    Raises:
        ConfigError: a batch size below 1.
        DataError: a text without a token, the prefix included.
        ModelError: not a model that can be decoded.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")
    network = open_network(model)
    lengths = torch.tensor([len(prefix) + len(text) for text in texts], dtype=torch.long)
    if len(texts) and int(lengths.min()) == 0:
        raise DataError(f"text {int(lengths.argmin())} has no tokens; there is nothing to embed")
    width = network.body.get_input_embeddings().weight.shape[1]  # type: ignore[operator]
    vectors = torch.zeros((len(texts), width), dtype=network.dtype, device=network.device)
    with decoding_mode(model), without_adapter(model):
        for rows in torch.argsort(lengths, descending=True, stable=True).split(batch_size):
            # Padded on the right, where no real token looks: the causal mask is all that is needed.
            ids = torch.zeros((len(rows), int(lengths[rows[0]])), dtype=torch.long)
            for row, text in enumerate(rows.tolist()):
                ids[row, : lengths[text]] = torch.tensor([*prefix, *texts[text]])
            hidden = network.body(input_ids=ids.to(network.device), use_cache=False).last_hidden_state
            last = (lengths[rows] - 1).to(network.device)
            vectors[rows.to(network.device)] = hidden[torch.arange(len(rows), device=last.device), last]
    return vectors.clone()  # out of inference mode, so that anything may be done with it


@contextmanager
def without_adapter(model: nn.Module) -> Iterator[None]:
    """The base model's outputs, where `model` is or wraps a PEFT model; else nothing happens."""
    while not hasattr(model, "disable_adapter") and isinstance(getattr(model, "module", None), nn.Module):
        model = model.module  # type: ignore[assignment]
    if not hasattr(model, "disable_adapter"):
        yield
        return
    trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        with model.disable_adapter():  # type: ignore[operator]
            yield
    finally:
        # PEFT makes the adapter trainable when it switches it on again, also one that was frozen.
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trainable[name])
