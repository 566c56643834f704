"""What every decoder does around its search: open the model, check, batch by length, join the parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from bearray.decoding.batches import length_batches
from bearray.decoding.network import Network, decoding_mode, open_network
from bearray.decoding.prefixes import right_padded
from bearray.decoding.result import BeamResult, join_results
from bearray.decoding.scoring import check_catalogue
from bearray.trie import TokenTrie


class Search(Protocol):
    """The search of one batch of users."""

    def run(self) -> BeamResult: ...


Start = Callable[[Network, TokenTrie, Tensor, Tensor], Search]
"""(network, trie on its device, right-padded prompts [U, T], their lengths [U]) -> the batch's search."""


def search_in_batches(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    trie: TokenTrie,
    start: Start,
    *,
    batch_size: int | None,
    eos_token_id: int | None,
    progress: Callable[[int, int], None] | None,
) -> BeamResult:
    """Run a search over all users, batch by batch, in evaluation mode; arguments as the decoders say."""
    network = open_network(model, eos_token_id)
    trie = trie.to(network.device)
    check_catalogue(trie, network)
    ids, lengths = right_padded(input_ids.to(network.device), attention_mask.to(network.device))
    parts, rows, done = [], [], 0
    with decoding_mode(model):
        for row, batch_ids, batch_lengths in length_batches(ids, lengths, batch_size):
            parts.append(start(network, trie, batch_ids, batch_lengths).run())
            rows.append(row)
            done += len(row)
            if progress is not None:
                progress(done, len(ids))
    return join_results(parts, torch.cat(rows))
