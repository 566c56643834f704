"""What every decoder does around its search: open the model, check, batch by length, join the parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from bearray.config import Normalize
from bearray.decoding.batches import in_batches, users_that_fit
from bearray.decoding.network import decoding_mode, open_network
from bearray.decoding.prefixes import right_padded
from bearray.decoding.result import BeamResult, join_results
from bearray.decoding.scoring import Guide, Scorer, check_catalogue, check_normalize
from bearray.decoding.title_filter import LivingTitles, TitleFilter
from bearray.errors import DataError
from bearray.trie import TokenTrie

Part = TypeVar("Part")


class Search(Protocol):
    """The search of one batch of users."""

    def run(self) -> BeamResult: ...


Start = Callable[[Scorer, Tensor, Tensor, Tensor], Search]
"""(the batch's scorer, right-padded prompts [U, T], their lengths [U], their rows in the input [U]) -> its
search."""


def search_in_batches(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    trie: TokenTrie,
    start: Start,
    *,
    normalize: Normalize,
    answer_tokens: int,
    titles: TitleFilter | None = None,
    make_guide: Callable[[TokenTrie, Tensor, LivingTitles | None], Guide] | None = None,
    batch_size: int | None,
    eos_token_id: int | None,
    progress: Callable[[int, int], None] | None,
) -> BeamResult:
    """Run a search over all users, batch by batch, in evaluation mode; arguments as the decoders say.

    Args:
        answer_tokens: answer tokens that are computed for a user, about; batches are sized by it.
        make_guide: given the trie on its device, a batch's rows and its living titles.
    """
    parts, order = map_batches(
        model,
        input_ids,
        attention_mask,
        trie,
        lambda *batch: start(*batch).run(),
        normalize=normalize,
        answer_tokens=answer_tokens,
        titles=titles,
        make_guide=make_guide,
        batch_size=batch_size,
        eos_token_id=eos_token_id,
        progress=progress,
    )
    return join_results(parts, order)


def map_batches(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    trie: TokenTrie,
    work: Callable[[Scorer, Tensor, Tensor, Tensor], Part],
    *,
    normalize: Normalize,
    answer_tokens: int,
    titles: TitleFilter | None = None,
    make_guide: Callable[[TokenTrie, Tensor, LivingTitles | None], Guide] | None = None,
    batch_size: int | None = None,
    eos_token_id: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Part], Tensor]:
    """Do any work batch by batch; arguments as `search_in_batches`, those of `work` as of `Start`.

    Returns:
        What `work` made of each batch, and the users [U] in the order of the batches.
    """
    check_normalize(normalize)
    if titles is not None and len(titles) != len(input_ids):
        raise DataError(
            f"the title filter is for {len(titles)} users, but there are {len(input_ids)} prompts"
        )
    network = open_network(model, eos_token_id)
    trie = trie.to(network.device)
    check_catalogue(trie, network)
    ids, lengths = right_padded(input_ids.to(network.device), attention_mask.to(network.device))
    parts: list[Part] = []
    rows: list[Tensor] = []

    def fit() -> int:
        config, element = network.body.config, network.dtype.itemsize
        return users_that_fit(config, network.device, element, int(lengths.max()), answer_tokens)

    def one(row: Tensor) -> None:
        batch_lengths = lengths[row]
        living = titles.on(trie, row.tolist()) if titles is not None else None
        guide = make_guide(trie, row, living) if make_guide is not None else None
        scorer = Scorer(network, trie, normalize, living, guide)
        parts.append(work(scorer, ids[row, : int(batch_lengths[0])], batch_lengths, row))
        rows.append(row)
        if progress is not None:
            progress(sum(map(len, rows)), len(ids))

    with decoding_mode(model):
        in_batches(lengths, batch_size, fit, one)
    return parts, torch.cat(rows)
