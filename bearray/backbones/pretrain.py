"""Next-token training of a small Llama on packed text: the stand-in for pre-training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


@dataclass(frozen=True, kw_only=True)
class BaseSize:
    """Shape of a stand-in and how long it is trained."""

    name: str
    """What it is called."""
    hidden: int
    """Hidden size D."""
    layers: int
    """Transformer blocks."""
    heads: int
    """Attention heads; D / heads is the size of one."""
    kv_heads: int
    """Key and value heads (grouped-query attention)."""
    intermediate: int
    """Width of the feed-forward part."""
    vocab_size: int
    """Upper bound of the tokenizer's vocabulary V."""
    context: int = 512
    """Tokens in a training block; longer than most prompts, so that no position is new to the model."""
    batch_blocks: int = 8
    """Blocks per optimiser step."""
    epochs: float = 4.0
    """Passes over the corpus, unless `max_steps` comes first."""
    max_steps: int = 400
    """Bound on optimiser steps, hence on time: a number of steps gives the same weights on a slow day."""
    lr: float = 2e-3
    """Peak learning rate of AdamW."""
    threads: int | None = None
    """CPU threads (None: PyTorch's choice). The number changes the last bits of a sum, and so the weights."""


def new_model(size: BaseSize, vocab_size: int, *, bos: int, eos: int, seed: int) -> LlamaForCausalLM:
    """A Llama with random weights from `seed`; the global random state stays as it was."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=bos,
        eos_token_id=eos,
        attention_bias=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return LlamaForCausalLM(config)


def pack(documents: Sequence[Sequence[int]], context: int, *, bos: int, eos: int) -> np.ndarray:
    """Documents between BOS and EOS, one after the other, cut into rows: int64 [rows, context + 1].

    Neighbouring rows share one token, so each token but the very first is a target once. The last, shorter
    piece is left out unless it is the only one; then the text is repeated to fill a row.
    """
    stream = np.concatenate([np.array([bos, *document, eos], dtype=np.int64) for document in documents])
    if len(stream) < context + 1:
        stream = np.resize(stream, context + 1)
    rows = (len(stream) - 1) // context
    return np.stack([stream[i * context : i * context + context + 1] for i in range(rows)])


def unigram_entropy(blocks: np.ndarray) -> float:
    """Nats per token of the best model that ignores context; a trained model must be well below it."""
    counts = np.bincount(blocks.ravel()).astype(np.float64)
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def steps_for(rows: int, size: BaseSize) -> int:
    """Optimiser steps for a corpus of that many blocks."""
    return max(1, min(size.max_steps, math.ceil(size.epochs * rows / size.batch_blocks)))


def train(
    model: LlamaForCausalLM,
    epoch_blocks: Callable[[int], np.ndarray],
    size: BaseSize,
    steps: int,
    *,
    seed: int,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> list[float]:
    """AdamW (0.9, 0.95), weight decay 0.1 on matrices, 5 % warm-up, then cosine to a tenth; clipped at norm
    1.

    Args:
        model: changed in place, on its own device.
        epoch_blocks: epoch number to token blocks [rows, context + 1]; asked for anew each epoch, so that
            the text can be written differently each time.
        steps: optimiser steps.
        on_step: called after each step with its number (from 1) and its loss in nats per token.

    Returns:
        The loss of each step.
    """
    rng = np.random.default_rng(seed)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=size.lr, betas=(0.9, 0.95))
    warmup = max(1, round(0.05 * steps))
    losses: list[float] = []
    epoch, queue = 0, np.empty((0, size.context + 1), dtype=np.int64)
    model.train()
    for step in range(1, steps + 1):
        while len(queue) < size.batch_blocks:
            blocks = epoch_blocks(epoch)
            queue = np.concatenate([queue, blocks[rng.permutation(len(blocks))]])
            epoch += 1
        batch = torch.from_numpy(queue[: size.batch_blocks]).to(model.device)
        queue = queue[size.batch_blocks :]
        for group in optimizer.param_groups:
            group["lr"] = size.lr * _schedule(step, steps, warmup)
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        on_step(step, losses[-1])
    model.eval()
    return losses


def _schedule(step: int, steps: int, warmup: int) -> float:
    if step <= warmup:
        return step / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done))
