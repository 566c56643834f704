"""Keys and values of one prompt a row, followed by slots that any of the row's prefixes may point at.

The usual cache of beam search holds B copies of the prompt and reorders them after every step. Here a row
holds its prompt once; every token fed later takes the next free slot of its row, for good, and the attention
mask says who sees whom. Buffers grow by doubling, so nothing is copied when a token is added.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class _SlotLayer(CacheLayerMixin):
    """One layer's [U, heads, slots, head size] keys and values; `used` slots are filled."""

    is_sliding = False

    def __init__(self, reserve: int, align: int) -> None:
        super().__init__()
        self.reserve = reserve
        self.align = align
        self.used = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        slots = key_states.shape[2] + self.reserve
        self.keys = _buffer(key_states, slots)
        self.values = _buffer(value_states, slots)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        first = not self.is_initialized
        if first:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        end = self.used + key_states.shape[2]
        shown = -(-end // self.align) * self.align
        if shown > self.keys.shape[2]:
            slots = max(shown, 2 * self.keys.shape[2] - self.used)
            self.keys = _grown(self.keys, slots, self.used)
            self.values = _grown(self.values, slots, self.used)
        self.keys[:, :, self.used : end] = key_states
        self.values[:, :, self.used : end] = value_states
        self.used = end
        if first:  # the prompt's own pass: exactly its keys, so that the causal fast path applies
            return key_states, value_states
        return self.keys[:, :, :shown], self.values[:, :, :shown]

    def repeat_row(self, users: int, slots: int) -> None:
        assert self.keys is not None and self.values is not None
        self.keys = _grown(self.keys.expand(users, -1, -1, -1), slots, self.used)
        self.values = _grown(self.values.expand(users, -1, -1, -1), slots, self.used)

    def get_seq_length(self) -> int:
        return self.used

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.used + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def keep_rows(self, rows: Tensor) -> None:
        assert self.keys is not None and self.values is not None
        self.keys, self.values = self.keys[rows], self.values[rows]


def _buffer(like: Tensor, slots: int) -> Tensor:
    # Zeros, not empty: a masked slot still enters the product with weight 0, and 0 * NaN is NaN.
    return torch.zeros(*like.shape[:2], slots, like.shape[3], dtype=like.dtype, device=like.device)


def _grown(buffer: Tensor, slots: int, used: int) -> Tensor:
    bigger = _buffer(buffer, slots)
    bigger[:, :, :used] = buffer[:, :, :used]
    return bigger


class SlotCache(Cache):
    """A `transformers` cache whose rows are prompts followed by slots.

    Args:
        reserve: slots for which room is made beyond the prompt (more are added when needed).
        align: later passes see a number of slots that is a multiple of this (attention kernels on GPU want
            8); those beyond the filled ones are zero and must be masked.
    """

    def __init__(self, *, reserve: int = 64, align: int = 8) -> None:
        self._slots: list[_SlotLayer] = []
        super().__init__(layers=self._slots)  # type: ignore[arg-type]  # the same list: the base class reads it
        self.reserve = reserve
        self.align = align

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        while len(self._slots) <= layer_idx:
            self._slots.append(_SlotLayer(self.reserve, self.align))
        return self._slots[layer_idx].update(key_states, value_states, *args, **kwargs)

    def repeat_row(self, users: int, more: int) -> None:
        """Give the only row to each of `users`, with room for `more` slots beyond the reserve."""
        for layer in self._slots:
            if layer.is_initialized:
                layer.repeat_row(users, layer.used + more + self.reserve)

    def keep_rows(self, rows: Tensor) -> None:
        """Keep only these rows [U'] of the batch."""
        for layer in self._slots:
            if layer.is_initialized:
                layer.keep_rows(rows)
