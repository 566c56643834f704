"""Users grouped by the length of their prompts."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bearray.errors import ConfigError, DataError


def length_batches(
    ids: Tensor, lengths: Tensor, batch_size: int | None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (user indices [U'], prompts [U', T'], lengths [U']), longest prompts first, each batch cut to
    its own longest.

    The longest come first so that a batch that does not fit in memory fails at once and not in the last
    minute.

    Args:
        ids: [U, T] right-padded prompts.
        lengths: [U] their lengths.
        batch_size: users a batch, None for all.
    """
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be at least 1, or None for all users at once")
    if len(ids) == 0:
        raise DataError("there are no prompts to decode; input_ids needs at least one row")
    order = torch.argsort(lengths, descending=True, stable=True)
    for rows in order.split(batch_size or len(order)):
        longest = int(lengths[rows[0]])
        yield rows, ids[rows, :longest], lengths[rows]
