"""Attention over a micro-batch whose tokens stand side by side, without padding and with nothing repeated.

A micro-batch is a tree: what all its prompts begin with, the rest of each prompt, and behind each prompt its
answers. Every token is computed once; the linear layers, which are most of the work, see one sequence of
exactly the tokens there are. Only the scores of attention are computed in a padded table, one row a window,
by `torch.nn.functional.scaled_dot_product_attention`.

Registered with `transformers` as an attention implementation. Without a layout it is the library's own
SDPA, so a model that is set to it validates and decodes as before.

Axis letters: L tokens of the micro-batch, S of them the start that its prompts share, R rows (windows), W
tokens of the longest row behind that start, H heads, E head size.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from bearray.packed_queries import PackedQueries, packed_attention

TREE_ATTENTION = "bearray_tree"
"""What `config._attn_implementation` says of a model that is set to it."""


@dataclass(frozen=True, eq=False)
class TreeLayout:
    """Which token is where: first the shared start, then row after row."""

    shared: int
    """S."""
    grid: Tensor
    """[R, W] int64, where in the sequence each row's own tokens are; 0 for padding."""
    flat: Tensor
    """[L - S] int64, where in the flattened grid each token behind the shared start is."""
    branch: Tensor
    """[R, W] int64: 0 in the prompt, k in the row's k-th answer (from 1), -1 in padding."""
    place: Tensor
    """[R, W] int64, how far behind the start of its prompt each token is; 0 for padding."""
    has_answers_aside: bool
    """Some row has several answers, so that order alone does not say who sees whom."""
    _visible: dict[int | None, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> TreeLayout:
        moved = {
            n: getattr(self, n).to(device, non_blocking=True) for n in ("grid", "flat", "branch", "place")
        }
        return replace(self, **moved, _visible={})

    @property
    def full_grid(self) -> Tensor:
        """[R, S + W] int64, each row with the shared start before it."""
        start = torch.arange(self.shared, device=self.grid.device)
        return torch.cat([start.expand(len(self.grid), -1), self.grid], dim=1)

    def distance(self) -> Tensor:
        """[R, W, S + W] by how many tokens each key comes before each query in its own sequence."""
        start = torch.arange(self.shared, device=self.place.device).expand(len(self.place), -1)
        return self.place[:, :, None] - torch.cat([start, self.place], dim=1)[:, None]

    def visible(self, window: int | None = None) -> Tensor:
        """[R, W, S + W] bool, which keys each query sees; padding sees the prompt, so that no softmax is over
        nothing, and only padding sees it."""
        if window not in self._visible:
            column = torch.arange(self.grid.shape[1], device=self.grid.device)
            query, key = self.branch[:, :, None], self.branch[:, None, :]
            own = (column <= column[:, None]) & ((key == 0) | (key == query))
            seen = F.pad(own, (self.shared, 0), value=True)
            self._visible[window] = seen if window is None else seen & (self.distance() < window)
        return self._visible[window]


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    tree_layout: TreeLayout | None = None,
    packed_queries: PackedQueries | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """`transformers`' attention interface; with a layout, query, key and value are [1, H, L, E]; with packed
    queries they are as in `packed_attention`.

    Returns:
        [1, L, H, E], and no attention weights.
    """
    if packed_queries is not None:
        assert attention_mask is not None
        return packed_attention(query, key, value, attention_mask, packed_queries, scaling), None
    if tree_layout is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    layout, shared = tree_layout, tree_layout.shared
    groups = query.shape[1] // key.shape[1]
    options: dict[str, Any] = {"dropout_p": dropout, "scale": scaling}
    queries, keys, values = (x[0].transpose(0, 1) for x in (query, key, value))  # [L, H, E]

    def rows(x: Tensor) -> Tensor:
        """[R, H, W, E] of [L, H, E]."""
        picked = x.index_select(0, layout.grid.flatten())
        return picked.unflatten(0, layout.grid.shape).transpose(1, 2)

    def repeated(x: Tensor) -> Tensor:
        """As many heads as the queries have."""
        return x if groups == 1 else x.repeat_interleave(groups, dim=1)

    own_keys, own_values = rows(keys), rows(values)
    parts = []
    if shared:
        first = [x[:, :, :shared] for x in (key, value)]
        near = None if sliding_window is None else _band(shared, sliding_window, query)
        start = F.scaled_dot_product_attention(
            query[:, :, :shared],
            repeated(first[0]),
            repeated(first[1]),
            attn_mask=near,
            is_causal=near is None,
            **options,
        )
        parts.append(start[0].transpose(0, 1))
        own_keys, own_values = (
            torch.cat([x.expand(len(layout.grid), -1, -1, -1), y], dim=2)
            for x, y in zip(first, (own_keys, own_values), strict=True)
        )
    # Without a shared start and with one answer a row, order is all: what is behind a token cannot be seen.
    plain = not shared and not layout.has_answers_aside and sliding_window is None
    mask = None if plain else layout.visible(sliding_window)[:, None]
    out = F.scaled_dot_product_attention(
        rows(queries), repeated(own_keys), repeated(own_values), attn_mask=mask, is_causal=plain, **options
    )
    parts.append(out.transpose(1, 2).flatten(0, 1).index_select(0, layout.flat))
    return torch.cat(parts)[None], None


def _band(tokens: int, window: int, like: Tensor) -> Tensor:
    """[tokens, tokens] bool: causal and not further back than the window."""
    place = torch.arange(tokens, device=like.device)
    distance = place[:, None] - place
    return (distance >= 0) & (distance < window)


def placeholder(device: torch.device) -> Tensor:
    """A 4-D mask, which `transformers` passes on as it is instead of making one of its own."""
    return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)


AttentionInterface.register(TREE_ATTENTION, tree_attention)
AttentionMaskInterface.register(TREE_ATTENTION, sdpa_mask)
