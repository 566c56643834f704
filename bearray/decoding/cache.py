"""Keys and values of one prompt a row, followed by slots that any of the row's prefixes may point at.

The usual cache of beam search holds B copies of the prompt and reorders them after every step. Here a row
holds its prompt once; every token fed later takes the next free slot of its row, for good, and the attention
mask says who sees whom. Buffers grow by doubling, so nothing is copied when a token is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from bearray.packed_queries import PackedQueries


@dataclass
class _Room:
    """What all layers have in common."""

    users: int
    slots: int
    align: int
    rows: slice = field(default_factory=lambda: slice(None))
    """Whose tokens the next pass computes."""
    packed: PackedQueries | None = None
    """Where they are among these rows, if they come without padding."""


class _SlotLayer(CacheLayerMixin):
    """One layer's [U, heads, slots, head size] keys and values; `used` slots are filled."""

    is_sliding = False

    def __init__(self, room: _Room) -> None:
        super().__init__()
        self.room = room
        self.used = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys = _buffer(key_states, self.room.users, self.room.slots)
        self.values = _buffer(value_states, self.room.users, self.room.slots)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        rows, packed = self.room.rows, self.room.packed
        start, end = self.used, self.used + (key_states.shape[2] if packed is None else packed.shape[1])
        shown = -(-end // self.room.align) * self.room.align
        if shown > self.keys.shape[2]:
            slots = max(shown, 2 * self.keys.shape[2] - self.used)
            self.keys = _grown(self.keys, slots, self.used)
            self.values = _grown(self.values, slots, self.used)
        self.used = end
        if packed is not None:
            at = (packed.user, slice(None), start + packed.column)
            self.keys[rows][at] = key_states[0].transpose(0, 1)
            self.values[rows][at] = value_states[0].transpose(0, 1)
            return self.keys[rows, :, :shown], self.values[rows, :, :shown]
        self.keys[rows, :, start:end] = key_states
        self.values[rows, :, start:end] = value_states
        if start == 0:  # a prompt's own pass: exactly its keys, so that the causal fast path applies
            return key_states, value_states
        return self.keys[rows, :, :shown], self.values[rows, :, :shown]

    def share_first_row(self) -> None:
        assert self.keys is not None and self.values is not None
        self.keys[1:, :, : self.used] = self.keys[:1, :, : self.used]
        self.values[1:, :, : self.used] = self.values[:1, :, : self.used]

    def get_seq_length(self) -> int:
        return self.used

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.used + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def keep_rows(self, rows: Tensor) -> None:
        assert self.keys is not None and self.values is not None
        self.keys, self.values = self.keys[rows], self.values[rows]


def _buffer(like: Tensor, users: int, slots: int) -> Tensor:
    # Zeros, not empty: a masked slot still enters the product with weight 0, and 0 * NaN is NaN.
    return torch.zeros(users, like.shape[1], slots, like.shape[3], dtype=like.dtype, device=like.device)


def _grown(buffer: Tensor, slots: int, used: int) -> Tensor:
    bigger = _buffer(buffer, len(buffer), slots)
    bigger[:, :, :used] = buffer[:, :, :used]
    return bigger


class SlotCache(Cache):
    """A `transformers` cache whose rows are prompts followed by slots.

    Args:
        users: rows.
        slots: room that is made at first (more is added when needed).
        align: later passes see a number of slots that is a multiple of this (attention kernels on GPU want
            8); those beyond the filled ones are zero and must be masked.
    """

    def __init__(self, users: int, slots: int, *, align: int = 8) -> None:
        self._slots: list[_SlotLayer] = []
        super().__init__(layers=self._slots)  # type: ignore[arg-type]  # the same list: the base class reads it
        self.align = align
        self._room = _Room(users, -(-slots // align) * align, align)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        while len(self._slots) <= layer_idx:
            self._slots.append(_SlotLayer(self._room))
        return self._slots[layer_idx].update(key_states, value_states, *args, **kwargs)

    def fill(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Take over computed tokens, in slots 0 to T - 1 of every row.

        Args:
            layers: keys and values of each layer, [U, heads, T, head size].
        """
        for index, (keys, values) in enumerate(layers):
            self.update(keys, values, index)

    def _filled(self) -> list[_SlotLayer]:
        return [layer for layer in self._slots if layer.is_initialized]

    def write_to(self, rows: slice, used: int) -> None:
        """The next pass computes these rows' tokens, from slot `used` on."""
        self._room.rows = rows
        for layer in self._filled():
            layer.used = used

    def pack(self, packed: PackedQueries | None) -> None:
        """The next passes compute these tokens of their rows alone, without padding; None: all, with it."""
        self._room.packed = packed

    def share_first_row(self) -> None:
        """Give what the first row holds to all others."""
        for layer in self._filled():
            layer.share_first_row()

    def keep_rows(self, rows: Tensor) -> None:
        """Keep only these rows [U'] of the batch."""
        for layer in self._filled():
            layer.keep_rows(rows)
