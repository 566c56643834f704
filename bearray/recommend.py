"""Windows in, recommended titles out: what validation and evaluation both do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from bearray.batching import left_pad
from bearray.config import DecodingConfig
from bearray.decoding import constrained_beam_search
from bearray.task import Case
from bearray.trie import TokenTrie


def recommend(
    model: nn.Module,
    cases: Sequence[Case],
    trie: TokenTrie,
    decoding: DecodingConfig,
    *,
    pad_token_id: int,
    device: torch.device | str,
) -> tuple[np.ndarray, np.ndarray]:
    """Decode windows.

    Returns:
        Title ids [U, B], -1 where the search found fewer, and scores [U, B] float32, -inf there; best first.
    """
    if not cases:
        empty = (0, decoding.beam_width)
        return np.zeros(empty, dtype=np.int64), np.zeros(empty, dtype=np.float32)
    input_ids, attention_mask = left_pad([c.prompt for c in cases], pad_token_id)
    result = constrained_beam_search(
        model,
        input_ids.to(device),
        attention_mask.to(device),
        trie,
        beam_width=decoding.beam_width,
        normalize=decoding.normalize,
        length_penalty=decoding.length_penalty,
        batch_size=decoding.batch_size,
    )
    return result.title_ids.numpy(), result.scores.numpy()


def target_ranks(cases: Sequence[Case], titles: np.ndarray) -> np.ndarray:
    """Rank of each target's title among the recommended ones [U, B]: 0-based, inf for a miss."""
    hits = titles == np.array([c.target_title for c in cases], dtype=np.int64).reshape(-1, 1)
    ranks: np.ndarray = np.where(hits.any(axis=1), hits.argmax(axis=1), np.inf)
    return ranks
