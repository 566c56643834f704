"""How narrowly a title made it through beam search: an observer of `guided_beam_search`.

At each step beam search cuts: the B best prefixes go on, the others are dropped. A title's margin is the
smallest distance, over its steps, of its own prefix from the best prefix that was dropped beside it, in nats:
what its least certain prefix could have lost and still have stayed. 0 means that the two were equal, inf that
nothing was ever dropped. The bar b^B of objective (3.1) of BEAR (arXiv 2601.22925), the worst prefix that
stayed, is the other edge of the same cut; how far a title that was dropped lay below it is `cut_gap` of
`bearray pruning`.

Axis letters: U users, B beams, K titles a user, S depths (tokens of the longest title, and the end).
"""

from __future__ import annotations

import torch
from torch import Tensor

from bearray.decoding.beams import Beams
from bearray.decoding.target import last_nodes, title_paths
from bearray.trie import TokenTrie


class MarginTrace:
    """Records what every depth of a search kept; pass it as `observer`, then ask `of` for margins.

    Args:
        trie: the search's.
        users: U. beam_width: B.
        device: of the search.
    """

    every_depth = True

    bar: Tensor
    """[U, S] float32: log-probability below which prefixes of 1, 2, ... tokens were dropped; -inf where
    nothing could be."""
    rival: Tensor
    """[U, S] float32: log-probability of the best prefix that was; -inf where none was."""
    end_bar: Tensor
    """[U, S] float32: what a title that ended there had to reach to be stored."""
    pruned: Tensor
    """[U] float32: best log-probability of anything that was dropped, at any step."""

    def __init__(self, trie: TokenTrie, users: int, beam_width: int, device: torch.device | str) -> None:
        self._trie = trie.to(device)
        shape = (users, trie.max_depth + 1)
        self.bar = torch.full(shape, -torch.inf, device=device)
        self.rival = torch.full(shape, -torch.inf, device=device)
        self.end_bar = torch.full(shape, -torch.inf, device=device)
        self.pruned = torch.full((users,), -torch.inf, device=device)
        self._node = torch.zeros((*shape, beam_width), dtype=torch.long, device=device)
        self._score = torch.full((*shape, beam_width), -torch.inf, device=device)
        self._depth = torch.zeros(users, dtype=torch.long, device=device)

    def advanced(self, users: Tensor, beams: Beams, bar: Tensor, end_bar: Tensor) -> None:
        """As `Observer.advanced`."""
        step = beams.depth - 1
        self.bar[users, step], self.end_bar[users, step] = bar, end_bar
        self.rival[users, step] = beams.rival
        self._node[users, step], self._score[users, step] = beams.node, beams.score
        self._depth[users], self.pruned[users] = beams.depth, beams.pruned

    def of(self, titles: Tensor) -> tuple[Tensor, Tensor]:
        """Margins of some titles, by what the beam kept.

        Args:
            titles: [U, K] index of each title in the trie's sequences, -1 for none.

        Returns:
            (margin [U, K] float32 on the CPU: smallest distance in nats over the prefixes that were kept; inf
            where nothing was dropped beside them, or where there is no title. cut [U, K] long: the step,
            from 1 on, at which the title's prefix was dropped, 0 if it never was while the search ran.)

        Raises:
            DataError: a title that the trie does not hold.
        """
        users, width = titles.shape
        device = self.bar.device
        margin = torch.full((users, width), torch.inf)
        cut = torch.zeros((users, width), dtype=torch.long)
        user, place = (titles >= 0).nonzero(as_tuple=True)
        if not len(user):
            return margin, cut
        wanted = titles[user, place]
        path, steps = title_paths(self._trie, last_nodes(self._trie, wanted, len(wanted)))
        row, path = user.to(device), path[:, 1:]  # [N, S']: the node after each token
        depth = torch.arange(1, path.shape[1] + 1, device=device)
        searched = (depth < steps[:, None]) & (depth <= self._depth[row, None])
        here = self._score[row, : path.shape[1]]
        here = here.masked_fill(self._node[row, : path.shape[1]] != path[..., None], -torch.inf)
        score = here.amax(-1)
        distance = (score - self.rival[row, : path.shape[1]]).masked_fill(~searched, torch.inf)
        lost = searched & (score == -torch.inf)
        margin[user, place] = distance.masked_fill(lost, torch.inf).amin(1).cpu()
        first = torch.where(lost, depth, path.shape[1] + 1).amin(1)
        cut[user, place] = torch.where(lost.any(1), first, 0).cpu()
        return margin, cut
