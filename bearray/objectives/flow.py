"""Training counts flowed down the trie: how the choices of users spread over a node's continuations.

With c(title) the number of times a title was chosen in training and mass(s) the sum of c over the titles that
start with the prefix s,

    flow(s -> s v)  = log mass(s v) / mass(s)                       a token's share, in nats
    stop_flow(s)    = log c(title that ends at s) / mass(s)         0 where s can only end

the logarithms kept from `FLOOR` = -15, which is also the stop_flow of a prefix that is no title. Flower's
released code has -15 for such stops; that a branch which nobody ever chose has the same floor is our
choice. Below such a branch shares are 0/0: there titles count alike, so a forced token's share is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from bearray.trie import TokenTrie

FLOOR = -15.0
"""Nats; the lowest log share, and the stop of a prefix that is no title."""


def check_counts(trie: TokenTrie, title_counts: Tensor) -> None:
    """Raises ValueError unless there is one count of at least 0 for each title."""
    if title_counts.shape != (trie.num_sequences,) or bool((title_counts < 0).any()):
        raise ValueError(
            f"title_counts must be {trie.num_sequences} counts, one for each title; "
            f"got shape {tuple(title_counts.shape)}"
        )


def at_ends(trie: TokenTrie, of_titles: Tensor) -> Tensor:
    """[nodes] float64: a title's value at the node where it ends, 0 elsewhere."""
    ends = trie.terminal >= 0
    values = torch.zeros(len(trie), dtype=torch.float64, device=trie.device)
    values[ends] = of_titles.to(values)[trie.terminal[ends].long()]
    return values


def subtree_sums(trie: TokenTrie, values: Tensor) -> Tensor:
    """Sums of [nodes, ...] over each node and all below it."""
    sums = values.clone()
    for level in range(trie.max_depth, 0, -1):
        nodes = (trie.depth == level).nonzero()[:, 0]
        sums.index_add_(0, trie.parent[nodes].long(), sums[nodes])
    return sums


@dataclass(frozen=True, eq=False)
class Flow:
    """Log shares of training choices, by trie node. Build it with `of`."""

    enter: Tensor
    """[nodes] float64, flow of the token that leads from the parent to the node; 0 for the root."""
    stop: Tensor
    """[nodes] float64, stop_flow of the node."""

    @classmethod
    def of(cls, trie: TokenTrie, title_counts: Tensor) -> Flow:
        """From how often each title was chosen in training, [titles].

        Raises:
            ValueError: not one count of at least 0 for each title.
        """
        check_counts(trie, title_counts)
        ends = torch.stack([at_ends(trie, title_counts), at_ends(trie, torch.ones_like(title_counts))], dim=1)
        mass = subtree_sums(trie, ends)
        chosen = mass[:, 0] > 0
        parent = trie.parent.long()

        def log_share(part: Tensor, whole: Tensor, known: Tensor) -> Tensor:
            share = torch.where(known, part[:, 0] / whole[:, 0], part[:, 1] / whole[:, 1])
            return share.log().clamp_min(FLOOR)

        enter = log_share(mass, mass[parent], chosen[parent])
        enter[0] = 0.0
        return cls(enter, log_share(ends, mass, chosen))

    def of_tokens(self, nodes: Tensor, instance: Tensor) -> tuple[Tensor, Tensor]:
        """Values of answer tokens.

        Args:
            nodes: [N] node before each token; each answer's tokens in order and side by side, its
                end-of-sequence last.
            instance: [N] which answer the token belongs to.

        Returns:
            flow [N] of each token (that of an end-of-sequence is the stop_flow of its node), and stop_flow
            [N] of the node before it.
        """
        nodes = nodes.long()
        stop = self.stop[nodes]
        flow = stop.clone()
        goes_on = instance[1:] == instance[:-1]
        flow[:-1] = torch.where(goes_on, self.enter[nodes[1:]], stop[:-1])
        return flow, stop
