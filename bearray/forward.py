"""One pass of a micro-batch through the model: its body once over every token, its head where it is asked.

Axis letters: L tokens of the micro-batch, R its windows, S tokens of the start that they share, W tokens of
the longest window behind it, N answer tokens, C columns of the vocabulary that are wanted, V vocabulary, D
hidden size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bearray.batching import Answer, Example, TokenBatch, collate
from bearray.decoding.network import open_network
from bearray.errors import ModelError
from bearray.tree_attention import TREE_ATTENTION, placeholder


def causal_lm(model: nn.Module) -> nn.Module:
    """The Hugging Face causal LM inside a PEFT wrapper, or the model itself."""
    wrapper: Any = model
    unwrapped: nn.Module = wrapper.get_base_model() if hasattr(model, "get_base_model") else model
    return unwrapped


def project(model: nn.Module, hidden_ND: Tensor, columns_C: Tensor | None = None) -> Tensor:
    """Logits of hidden states that the model's body returned, as the model itself would make them: [N, V], or
    [N, C] of some tokens. The latter needs a plain matrix as head (`has_plain_head`)."""
    lm: Any = causal_lm(model)
    head = lm.get_output_embeddings()
    if columns_C is None:
        logits = head(hidden_ND)
    else:
        bias = None if head.bias is None else head.bias[columns_C]
        logits = nn.functional.linear(hidden_ND, head.weight.index_select(0, columns_C), bias)
    cap = getattr(lm.config, "final_logit_softcapping", None)  # Gemma 2 and its kin
    return logits if not cap else torch.tanh(logits / cap) * cap


def has_plain_head(model: nn.Module) -> bool:
    """Whether rows of the output projection can be used apart: it has no adapter and is whole on this
    worker."""
    lm: Any = causal_lm(model)
    head = lm.get_output_embeddings()
    return type(head) is nn.Linear and not hasattr(head.weight, "ds_id")


@torch.no_grad()
def check_projection(model: nn.Module, device: torch.device | str) -> None:
    """Make sure that body and projection give the model's own logits; some families do more in between.

    Raises:
        ModelError: the model changes its logits in a way that `project` does not know.
    """
    lm: Any = causal_lm(model)
    was_training = lm.training
    lm.eval()
    ids = torch.arange(1, 5, device=device).remainder(lm.config.vocab_size)[None]
    hidden = lm.base_model(input_ids=ids, use_cache=False).last_hidden_state
    ours, theirs = project(lm, hidden[0]).float(), lm(input_ids=ids, use_cache=False).logits[0].float()
    lm.train(was_training)
    if not _close(ours, theirs):
        raise ModelError(
            f"{type(lm).__name__} scales or shifts its logits in a way that bearray does not know; "
            "Llama, Qwen2, Qwen3, Mistral and Gemma-like models work"
        )


def _close(ours: Tensor, theirs: Tensor) -> bool:
    tolerance = 1e-3 if theirs.dtype == torch.float32 else 5e-2
    ours, theirs = ours.float(), theirs.float()
    return torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max()))


def use_tree_attention(model: nn.Module, device: torch.device | str) -> bool:
    """Let the model read micro-batches without padding, if it can: its attention is SDPA and hands on what
    its body is given. Tried out on a small micro-batch; a model that cannot is left as it was, and reads
    padded rows (`hidden_states`).

    Returns:
        Whether it can.
    """
    lm: Any = causal_lm(model)
    if lm.config._attn_implementation == TREE_ATTENTION:
        return True
    if lm.config._attn_implementation != "sdpa":
        return False
    batch = _trial(int(lm.config.vocab_size)).to(device)
    was_training = lm.training
    lm.eval()
    with torch.no_grad():
        padded = hidden_states(lm, batch)
        lm.config._attn_implementation = TREE_ATTENTION
        try:
            same = _close(hidden_states(lm, batch), padded)
        except (
            TypeError,
            ValueError,
            RuntimeError,
        ):  # a body that takes no further arguments, or no such row
            same = False
    lm.train(was_training)
    if not same:
        lm.config._attn_implementation = "sdpa"
    return same


def _trial(vocabulary: int) -> TokenBatch:
    """Three windows with a shared start, different lengths and several answers."""

    def tokens(first: int, count: int) -> list[int]:
        return [(first + 7 * i) % vocabulary for i in range(count)]

    start = tokens(1, 5)
    windows = [Example(start + tokens(20 + i, 2 + 3 * i), tokens(50 + i, 4), [0] * 4, 0) for i in range(3)]
    return collate(windows, 0, [[Answer(tokens(70 + i, 3), [0] * 3, 1)] * i for i in range(3)])


def hidden_states(model: nn.Module, batch: TokenBatch, cache: Any = None) -> Tensor:
    """Hidden states [L, D] after the last norm; each token's are those that it would have in its own
    sequence, a prompt and one answer, alone.

    With tree attention (`use_tree_attention`) every token is computed once. Else rows are padded and the
    shared start is repeated in each; the values are the same.

    Args:
        cache: a `transformers` cache that is to receive the keys and values; None for none. `row_keys` reads
            it.

    Raises:
        ModelError: several answers, and a model whose attention takes no mask of one's own.
    """
    lm: Any = causal_lm(model)
    if lm.config._attn_implementation == TREE_ATTENTION:
        states: Tensor = lm.base_model(
            input_ids=batch.input_ids[None],
            attention_mask=placeholder(batch.input_ids.device),
            position_ids=batch.position_ids[None],
            past_key_values=cache,
            use_cache=cache is not None,
            tree_layout=batch.layout,
        ).last_hidden_state
        return states[0]
    layout = batch.layout
    grid = layout.full_grid
    mask: Any = None
    if layout.has_answers_aside:
        network = open_network(model, eos_token_id=0)
        mask = network.mask(*_padded_view(batch), network.dtype)
    # Otherwise order says who sees whom: padding stands behind all that is real.
    states = lm.base_model(
        input_ids=batch.input_ids[grid],
        attention_mask=mask,
        position_ids=batch.position_ids[grid] if mask is not None else None,
        past_key_values=cache,
        use_cache=cache is not None,
    ).last_hidden_state
    own = states[:, layout.shared :].flatten(0, 1).index_select(0, layout.flat)
    return torch.cat([states[0, : layout.shared], own])


def _padded_view(batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """[R, S + W, S + W] which keys each query of the padded rows sees, and how far behind it they are."""
    layout = batch.layout
    width = layout.shared + layout.grid.shape[1]
    column = torch.arange(layout.shared, device=layout.grid.device)
    rows = len(layout.grid)
    start = torch.zeros(rows, layout.shared, width, dtype=torch.bool, device=column.device)
    start[:, :, : layout.shared] = column <= column[:, None]
    places = torch.cat([column.expand(rows, -1), layout.place], dim=1)
    return torch.cat([start, layout.visible()], dim=1), places[:, :, None] - places[:, None, :]


def row_keys(model: nn.Module, batch: TokenBatch, cache: Any) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of the prompts that `hidden_states` left in a cache.

    Returns:
        For each layer two tensors [R, heads, longest prompt, head size]; behind a prompt's end stands
        anything.
    """
    lm: Any = causal_lm(model)
    prompts = batch.prompts()
    if lm.config._attn_implementation != TREE_ATTENTION:
        width = prompts.shape[1]
        return [(layer.keys[:, :, :width], layer.values[:, :, :width]) for layer in cache.layers]

    def pick(x: Tensor) -> Tensor:
        return x[0].index_select(1, prompts.flatten()).unflatten(1, prompts.shape).transpose(0, 1)

    return [(pick(layer.keys), pick(layer.values)) for layer in cache.layers]
