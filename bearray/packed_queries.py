"""Attention of new tokens that stand side by side without padding, each over the keys of its own user.

The users of a batch seldom want equally many tokens computed. The linear layers, which are most of the work,
see only the tokens that there are; only the scores of attention are computed in a padded table, one row a
user. Reached through `bearray.tree_attention`, so of models that are set to it alone.

Axis letters: M new tokens, U users, Q new tokens of the user that has most, S slots, H heads of the queries,
K of the keys, G = H / K, E head size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PackedQueries:
    """Where the new tokens would stand in a padded table [U, Q]."""

    user: Tensor
    """[M] row of each."""
    column: Tensor
    """[M] its column."""
    shape: tuple[int, int]
    """(U, Q)."""

    @classmethod
    def of(cls, real: Tensor) -> PackedQueries:
        """The places of `real` [U, Q] bool, row by row."""
        user, column = real.nonzero(as_tuple=True)
        return cls(user, column, (real.shape[0], real.shape[1]))

    def pick(self, table: Tensor) -> Tensor:
        """[M, ...] of a table [U, Q, ...]."""
        return table[self.user, self.column]


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, packed: PackedQueries, scaling: float | None
) -> Tensor:
    """Attention without dropout.

    Args:
        query: [1, H, M, E]. key, value: [U, K, S, E].
        mask: [U, 1, Q, S] bool, which slots each query may look at; at least one each.
        packed: whose each query is.
        scaling: of the scores; None: 1 / sqrt(E).

    Returns:
        [1, M, H, E].
    """
    (users, columns), heads = packed.shape, key.shape[1]
    groups = query.shape[1] // heads
    rows = query.new_zeros(users, columns, *query.shape[1::2])
    rows[packed.user, packed.column] = query[0].transpose(0, 1)
    # Heads that share keys become further queries: the keys are not repeated.
    rows = rows.unflatten(2, (heads, groups)).permute(0, 2, 3, 1, 4).flatten(2, 3)
    if groups > 1:
        mask = mask[:, :, None].expand(-1, -1, groups, -1, -1).flatten(2, 3)
    out = F.scaled_dot_product_attention(rows, key, value, attn_mask=mask, scale=scaling)
    out = out.unflatten(2, (groups, columns)).permute(0, 3, 1, 2, 4).flatten(2, 3)
    return packed.pick(out)[None]
