"""Users grouped by the length of their prompts, as many at a time as memory holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bearray.errors import ConfigError, DataError

_CPU_BYTES = 2 * 2**30
"""Memory that a batch may take on CPU."""
_CPU_USERS = 32
"""Larger batches leave the caches of a CPU and gain nothing (benchmarks/decoding.py)."""
GPU_USERS = 256
"""Some 40,000 prompt tokens keep any GPU busy."""
GPU_SHARE = 0.8
"""Of the memory that is free; the rest is for what the estimate leaves out."""


def users_that_fit(config: Any, device: torch.device, element: int, prompt: int, answers: int) -> int:
    """How many users a batch may have, by an estimate on the safe side. At least 1.

    Args:
        config: the model's `transformers` configuration.
        device: where it runs.
        element: bytes of a number in its activations.
        prompt: tokens of the longest prompt.
        answers: answer tokens that a user may need computed, at most.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        room, most = GPU_SHARE * (free + cached), GPU_USERS
    else:
        room, most = float(_CPU_BYTES), _CPU_USERS
    return max(1, min(most, int(room // user_bytes(config, element, prompt, answers))))


def user_bytes(config: Any, element: int, prompt: int, answers: int) -> int:
    """What a user takes in a batch, on the safe side; arguments as of `users_that_fit`."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    hidden, heads = text.hidden_size, text.num_attention_heads
    head = getattr(text, "head_dim", None) or hidden // heads
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    wide = getattr(text, "intermediate_size", None) or 4 * hidden
    keys = 2 * text.num_hidden_layers * kv_heads * head * element * (prompt + answers)
    # One layer at work on the prompt: residuals, queries, the wide products and what is made of them.
    layer = prompt * (6 * hidden + 4 * wide) * element
    mask = (prompt + answers) * max(answers, 64) * 8
    return int(keys + layer + mask)


def in_batches(
    lengths: Tensor, batch_size: int | None, fit: Callable[[], int], run: Callable[[Tensor], None]
) -> None:
    """Call `run` with the user indices [U'] of one batch after the other, longest prompts first.

    The longest come first so that a batch that does not fit in memory fails at once and not in the last
    minute. Where no size was asked for and a batch runs out of GPU memory all the same, it is halved and
    tried again; what is done stays done.

    Args:
        lengths: [U] tokens of each prompt.
        batch_size: users a batch; None asks `fit`.
        fit: an estimate of how many users fit.

    Raises:
        ConfigError: a batch size below 1.
        DataError: no users.
    """
    if batch_size is not None and batch_size < 1:
        raise ConfigError(
            f"batch_size is {batch_size}; it must be at least 1, or None for what fits in memory"
        )
    if len(lengths) == 0:
        raise DataError("there are no prompts to decode; input_ids needs at least one row")
    left = torch.argsort(lengths, descending=True, stable=True)
    size = batch_size or fit()
    while len(left):
        try:
            run(left[:size])
            left = left[size:]
            continue
        except torch.OutOfMemoryError:
            if batch_size is not None or size == 1:
                raise
        # Out of the handler, so that the failed batch's tensors, which its traceback holds, are free.
        torch.cuda.empty_cache()
        size = max(1, min(size, len(left)) // 2)
