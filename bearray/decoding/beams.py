"""The state of beam search, and one depth of it on what is known.

Axis letters: U users, B beams, C kept continuations of a prefix (at most 2B), L tokens of a forced stretch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from bearray.trie import TokenTrie

_PER_BEAM = ("node", "slot", "computed", "stretch")


@dataclass(eq=False)
class Beams:
    """The state of U users. Dead beams have score -inf."""

    score: Tensor
    """[U, B] log-probability of each prefix."""
    node: Tensor
    """[U, B] its trie node."""
    slot: Tensor
    """[U, B] slot of its last computed token, -1 for the prompt."""
    computed: Tensor
    """[U, B] depth of that token; beyond the prefix's own depth where a forced stretch was scored ahead."""
    stretch: Tensor
    """[U, B] depth at which the scored stretch begins."""
    forced: Tensor
    """[U, B, L] log-probabilities of the stretch's forced tokens; L is 0 where they are certain ("trie")."""
    next_score: Tensor
    """[U, B, C] log-probabilities of the best continuations of the last computed node."""
    next_node: Tensor
    """[U, B, C] where they lead, -1 for the end of a title."""
    final_score: Tensor
    """[U, B] scores of the stored titles, best first."""
    final_node: Tensor
    """[U, B] their nodes."""
    pruned: Tensor
    """[U] best log-probability of anything dropped so far."""
    rival: Tensor
    """[U] log-probability of the best prefix dropped at the last step (a bound on it where fewer than B + 1
    of the 2B candidates were prefixes), -inf where none was."""
    depth: Tensor
    """[U] tokens in each prefix."""
    open: Tensor
    """[U] not done."""
    expanded: Tensor
    """[U] nodes scored so far."""

    @classmethod
    def at_root(cls, next_score: Tensor, next_node: Tensor, width: int, *, score_forced: bool) -> Beams:
        """One live beam at the root of each user.

        Args:
            next_score, next_node: [U, C] the root's best continuations.
            width: B.
            score_forced: forced tokens are not certain ("full").
        """
        users, device = len(next_score), next_score.device
        shape = (users, width)

        def zeros() -> Tensor:
            return torch.zeros(shape, dtype=torch.long, device=device)

        score = torch.full(shape, -torch.inf, device=device)
        # A user who may be given nothing starts dead: a root with a single child would seem certain.
        score[:, 0] = torch.where((next_score > -torch.inf).any(1), 0.0, -torch.inf)
        count = torch.zeros(users, dtype=torch.long, device=device)
        return cls(
            score=score,
            node=zeros(),
            slot=zeros() - 1,
            computed=zeros(),
            stretch=zeros(),
            forced=next_score[:, None, : int(score_forced)].expand(-1, width, -1).clone(),
            next_score=next_score[:, None].expand(-1, width, -1).clone(),
            next_node=next_node[:, None].expand(-1, width, -1).clone(),
            final_score=torch.full(shape, -torch.inf, device=device),
            final_node=zeros(),
            pruned=torch.full((users,), -torch.inf, device=device),
            rival=torch.full((users,), -torch.inf, device=device),
            depth=count.clone(),
            open=torch.ones(users, dtype=torch.bool, device=device),
            expanded=count + 1,
        )

    def take(self, rows: Tensor) -> Beams:
        """A copy of some users' state."""
        return Beams(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def put(self, rows: Tensor, part: Beams) -> None:
        """Write back what `take` took."""
        for f in fields(self):
            getattr(self, f.name)[rows] = getattr(part, f.name)

    def forced_ahead(self, trie: TokenTrie) -> Tensor:
        """[U] how many tokens come next in all of a user's prefixes without a choice and without an end."""
        ahead = trie.depth[trie.forced_end[self.node].long()].long() - self.depth[:, None]
        dead = self.score == -torch.inf
        return ahead.masked_fill(dead, trie.max_depth).amin(1).masked_fill(dead.all(1), 0)

    def skip(self, trie: TokenTrie, tokens: Tensor) -> None:
        """Go down `tokens` [U] depths, at most `forced_ahead` and certain ("trie"): as `advance` so often,
        where no length penalty makes prefixes worse with each token."""
        left = torch.where(self.score > -torch.inf, tokens[:, None], 0)
        for gone in range(int(tokens.max())):
            self.node = torch.where(left > gone, trie.child_start[self.node].long() + 1, self.node)
        self.depth = self.depth + tokens
        self.rival = self.rival.masked_fill(tokens > 0, -torch.inf)  # nothing was dropped at the last step

    def advance(self, trie: TokenTrie, length_penalty: float) -> tuple[Tensor, Tensor]:
        """One depth: choose among the continuations of all prefixes, which must all be known.

        Returns:
            The bars [U] of this depth, as log-probabilities: a prefix that goes on was dropped below the
            first, a title that ends was not stored below the second.
        """
        width = self.score.shape[1]
        step_score, step_node = self._continuations(trie)
        kept = step_score.shape[2]
        total = (self.score[..., None] + step_score).flatten(1)
        score, index = total.topk(min(2 * width, total.shape[1]), dim=1)
        score, index = widen(score, 2 * width, -torch.inf), widen(index, 2 * width, 0)
        beam = index // kept
        child = step_node.flatten(1).gather(1, index)
        ends = (child < 0) & (score > -torch.inf)
        rank = torch.arange(2 * width, device=score.device)
        stored = ends & (rank < width)

        length = (self.depth + 1).float()[:, None] ** length_penalty
        final = torch.cat([self.final_score, torch.where(stored, score / length, -torch.inf)], dim=1)
        final_node = torch.cat([self.final_node, self.node.gather(1, beam)], dim=1)
        self.final_score, place = final.topk(width, dim=1)
        self.final_node = final_node.gather(1, place)

        running = score.masked_fill(ends, -torch.inf)
        dropped = torch.where(ends & ~stored, score, -torch.inf).amax(1)
        best, place = running.topk(width + 1, dim=1)
        # Anything not even listed scores at most the last one listed (which is -inf unless the list is full).
        self.pruned = torch.stack([self.pruned, dropped, best[:, width], score[:, -1]]).amax(0)
        self.rival = torch.maximum(best[:, width], score[:, -1])
        place = place[:, :width]
        self._follow(beam.gather(1, place), keep_next=self.forced.shape[2] > 0)
        self.score = best[:, :width].contiguous()
        self.node = torch.where(self.score > -torch.inf, child.gather(1, place), 0)
        self.depth = self.depth + 1
        best_possible = self.score[:, 0] / length[:, 0]
        self.open = (best_possible > self.final_score[:, -1]) & (self.score[:, 0] > -torch.inf)
        bar = torch.maximum(self.score[:, -1], score[:, -1])
        return bar, torch.maximum(score[:, width - 1], self.final_score[:, -1] * length[:, 0])

    def _follow(self, parent: Tensor, *, keep_next: bool) -> None:
        """Each beam takes over what its parent [U, B] had computed."""
        for name in _PER_BEAM:
            setattr(self, name, getattr(self, name).gather(1, parent))
        if keep_next:  # a beam in a scored stretch still needs what was found on it and at its end
            for name in ("forced", "next_score", "next_node"):
                old = getattr(self, name)
                setattr(self, name, old.gather(1, parent[..., None].expand(-1, -1, old.shape[2])))

    def _continuations(self, trie: TokenTrie) -> tuple[Tensor, Tensor]:
        """(log-probabilities, nodes) [U, B, C] of each beam's continuations; a forced one is in the first
        column.
        """
        single = trie.child_count(self.node) == 1
        edge = trie.child_start[self.node].long()
        only = torch.where(trie.terminal[self.node] >= 0, -1, edge + 1)
        score, node = self.next_score.clone(), self.next_node.clone()
        if self.forced.shape[2]:
            step = (self.depth[:, None] - self.stretch).clamp(0, self.forced.shape[2] - 1)
            forced = self.forced.gather(2, step[..., None])[..., 0]
        else:
            forced = torch.zeros_like(self.score)
        score.masked_fill_(single[..., None], -torch.inf)
        score[..., 0] = torch.where(single, forced, score[..., 0])
        node[..., 0] = torch.where(single, only, node[..., 0])
        return score, node


def widen(values: Tensor, width: int, fill: float) -> Tensor:
    """Pad the last axis to `width`."""
    return nn.functional.pad(values, (0, width - values.shape[-1]), value=fill)
