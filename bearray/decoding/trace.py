"""Where beam search drops a given title: an observer of `guided_beam_search`.

It goes by the nodes that the beams hold, not by scores, so what it says is what happened, ties and rounding
included. Axis letters: U users, S steps (a title's tokens and its end).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bearray.decoding.beams import Beams
from bearray.decoding.target import last_nodes, title_paths
from bearray.trie import TokenTrie


class TargetTrace:
    """Follows one title a user down the search; pass it as `observer`.

    Args:
        trie: the search's.
        titles: [U] index of each user's title in the trie's sequences.

    Raises:
        DataError: titles that the trie does not hold.
    """

    every_depth = True

    cut_step: Tensor
    """[U] long: token, from 1 on, at which the title's prefix left the beams; tokens + 1 where all were kept
    but the end was not stored. 0: never, while the search ran. So it may have been stored and then made way
    for B better titles, or the search may have ended before it: neither is pruning."""
    bar: Tensor
    """[U] float32: log-probability, of that prefix or of the title, below which the step dropped; NaN where
    cut_step is 0."""

    def __init__(self, trie: TokenTrie, titles: Tensor | Sequence[int]) -> None:
        self._last = last_nodes(trie, titles, len(titles))
        self._path, self._steps = title_paths(trie, self._last)
        self.cut_step = torch.zeros_like(self._steps)
        self.bar = torch.full(self._steps.shape, torch.nan, device=trie.device)

    def advanced(self, users: Tensor, beams: Beams, bar: Tensor, end_bar: Tensor) -> None:
        """As `Observer.advanced`."""
        if self._last.device != users.device:
            for name in ("_last", "_path", "_steps", "cut_step", "bar"):
                setattr(self, name, getattr(self, name).to(users.device))
        steps, depth = self._steps[users], beams.depth
        ends = depth == steps
        reached = self._path[users, depth.clamp(max=self._path.shape[1] - 1)]
        kept = ((beams.node == reached[:, None]) & (beams.score > -torch.inf)).any(1)
        last = self._last[users]
        stored = ((beams.final_node == last[:, None]) & (beams.final_score > -torch.inf)).any(1)
        cut = (self.cut_step[users] == 0) & (depth <= steps) & ~torch.where(ends, stored, kept)
        self.cut_step[users] = torch.where(cut, depth, self.cut_step[users])
        self.bar[users] = torch.where(cut, torch.where(ends, end_bar, bar), self.bar[users])
