"""Greedy constrained decoding: at each depth the most probable valid next token, until a title ends.

With one beam, beam search does the same: the best continuation goes on, or ends a title, and then nothing
that is left can beat it (without a length penalty).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from bearray.config import Normalize
from bearray.decoding.beam import constrained_beam_search
from bearray.decoding.result import BeamResult
from bearray.decoding.title_filter import TitleFilter
from bearray.trie import TokenTrie


def greedy_search(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    trie: TokenTrie,
    *,
    normalize: Normalize = "trie",
    titles: TitleFilter | None = None,
    batch_size: int | None = None,
    eos_token_id: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BeamResult:
    """One title for each user, the greedy one; arguments and errors as in `constrained_beam_search`.

    The title is the same under both normalisers, its log-probability is not.
    """
    return constrained_beam_search(
        model,
        input_ids,
        attention_mask,
        trie,
        beam_width=1,
        normalize=normalize,
        titles=titles,
        batch_size=batch_size,
        eos_token_id=eos_token_id,
        progress=progress,
    )
