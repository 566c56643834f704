"""What a decoder returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bearray.trie import TokenTrie


@dataclass(frozen=True, eq=False)
class BeamResult:
    """Titles for U users, best first, at most B (or K) each."""

    sequences: list[list[list[int]]]
    """[U][<=B] token lists, without end-of-sequence."""
    scores: Tensor
    """[U, B] float32, log-probability (beam search: divided by its length penalty), or what D3 and grounding
    rank by; -inf where there is no such title.
    """
    title_ids: Tensor
    """[U, B] long, index of the title in the trie's sequences; -1 where there is none."""
    certified: Tensor
    """[U] bool: the list is proven to be the true top B of the whole catalogue (never claimed when a length
    penalty reorders the titles)."""
    forward_passes: int = 0
    """Forward passes of the model, the prompts' included."""
    expanded: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    """[U] long: trie nodes whose next-token distribution was computed for the user."""

    @property
    def proven(self) -> Tensor:
        """[U] bool: another name for `certified`, the usual one for an anytime search."""
        return self.certified


def make_result(
    trie: TokenTrie, nodes: Tensor, scores: Tensor, certified: Tensor, forward_passes: int, expanded: Tensor
) -> BeamResult:
    """Turn final trie nodes [U, B] (anything where `scores` is -inf) into a result on the CPU."""
    found = scores > -torch.inf
    nodes = torch.where(found, nodes, 0)
    title_ids = torch.where(found, trie.terminal[nodes].long(), -1)
    flat = iter(trie.sequences_at(nodes[found]))
    sequences = [[next(flat) for _ in range(count)] for count in found.sum(1).tolist()]
    return BeamResult(
        sequences=sequences,
        scores=scores.float().cpu(),
        title_ids=title_ids.cpu(),
        certified=certified.cpu(),
        forward_passes=forward_passes,
        expanded=expanded.cpu(),
    )


def join_results(parts: list[BeamResult], order: Tensor) -> BeamResult:
    """Put batches back together; row i of the joined parts belongs to user `order[i]`."""
    back = torch.argsort(order.cpu())
    rows = [row for part in parts for row in part.sequences]
    return BeamResult(
        sequences=[rows[i] for i in back.tolist()],
        scores=torch.cat([part.scores for part in parts])[back],
        title_ids=torch.cat([part.title_ids for part in parts])[back],
        certified=torch.cat([part.certified for part in parts])[back],
        forward_passes=sum(part.forward_passes for part in parts),
        expanded=torch.cat([part.expanded for part in parts])[back],
    )
