"""The search of one batch of users, and who of them waits for the model.

What a search knows and how it goes down one depth is in `beams.py`; what it finds, and why it is faster than
`generate`, in `beam.py`. Axis letters: U users, B beams, C kept continuations of a prefix (at most 2B).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from bearray.decoding.beams import Beams, widen
from bearray.decoding.prefixes import Extension, PrefixTree
from bearray.decoding.result import BeamResult, make_result
from bearray.decoding.scoring import Scorer


class Observer(Protocol):
    """Watches the search, depth by depth."""

    every_depth: bool
    """It must be told also of depths at which none of a user's prefixes has a choice: nothing changes there
    but the depth."""

    def advanced(self, users: Tensor, beams: Beams, bar: Tensor, end_bar: Tensor) -> None:
        """Some users [U'] (rows of the input) went down one depth; the bars are those of `Beams.advance`."""
        ...


class BeamSearch:
    """The search of one batch of users.

    Args:
        scorer: what the model says.
        tree: the prompts, computed.
        rows: [U] what the observer is told about whom.
        beam_width, length_penalty, observer: as `guided_beam_search`.
        depths: [U] at least 1, where each user's search may end although its titles have not, for an observer
            that needs to see no more; None: nowhere.
    """

    def __init__(
        self,
        scorer: Scorer,
        tree: PrefixTree,
        rows: Tensor,
        *,
        beam_width: int,
        length_penalty: float = 0.0,
        observer: Observer | None = None,
        depths: Tensor | None = None,
    ) -> None:
        self.scorer = scorer
        self.tree = tree
        self.trie = scorer.trie
        self.full = scorer.normalize == "full"
        self.rows = rows
        self.width = beam_width
        self.length_penalty = length_penalty
        self.observer = observer
        self.depths = depths
        self._may_skip = not (self.full or length_penalty or (observer is not None and observer.every_depth))
        self.user = torch.arange(len(rows), device=rows.device)
        root = torch.zeros_like(self.user)
        best = self._best(*scorer(self.tree.root_hidden, root, self.user, same_node=True))
        self.beams = Beams.at_root(*best, beam_width, score_forced=self.full)

    def _best(self, log_probs: Tensor, child: Tensor) -> tuple[Tensor, Tensor]:
        """The best 2B continuations of each row: more of one prefix can never be among a user's best 2B."""
        best, column = log_probs.topk(min(2 * self.width, log_probs.shape[1]), dim=1)
        return best, child.gather(1, column)

    def run(self) -> BeamResult:
        """Search, and turn what was found into lists."""
        everyone = self.search()
        return make_result(
            self.trie,
            everyone.final_node,
            everyone.final_score,
            self._certified(everyone),
            self.tree.passes,
            everyone.expanded,
        )

    def search(self) -> Beams:
        """Go down until every user is done; the state of all users."""
        everyone = self.beams
        while True:
            beams = self.beams
            known = beams.open & (self._known() | (beams.score == -torch.inf)).all(1)
            if bool(known.any()):
                self._go_down(known)
            elif bool(beams.open.any()):
                everyone = self._leave(everyone)
                self._compute()
            else:
                break
        self._store(everyone)
        return everyone

    def _go_down(self, known: Tensor) -> None:
        """Users [U] of whom enough is known go down: a depth with a choice, then all depths without."""
        beams = self.beams
        rows = known.nonzero()[:, 0]
        part = beams if len(rows) == len(known) else beams.take(rows)
        bars = part.advance(self.trie, self.length_penalty)
        if self.observer is not None:
            self.observer.advanced(self.rows[self.user[rows]], part, *bars)
        if part is not beams:
            beams.put(rows, part)
        if self._may_skip:
            tokens = torch.where(known & beams.open, beams.forced_ahead(self.trie), 0)
            if self.depths is not None:
                tokens = torch.minimum(tokens, self.depths[self.user] - beams.depth).clamp(min=0)
            beams.skip(self.trie, tokens)
        if self.depths is not None:
            beams.open = beams.open & (beams.depth < self.depths[self.user])

    # -- who waits for the model, who leaves -----------------------------------------------------------------

    def _known(self) -> Tensor:
        """[U, B] the continuations of the beam's node can be told without the model."""
        beams = self.beams
        reached = beams.computed >= beams.depth[:, None]
        if self.full:
            return reached
        return reached | (self.trie.child_count(beams.node) == 1)

    def _leave(self, everyone: Beams) -> Beams:
        """Take finished users out of the batch once they are a quarter of it: dropping copies the others'
        keys.
        """
        stay = self.beams.open.nonzero()[:, 0]
        if len(stay) > 0.75 * len(self.beams.open):
            return everyone
        if everyone is self.beams:
            everyone = everyone.take(torch.arange(len(self.user), device=self.user.device))
        self._store(everyone)
        self.user = self.user[stay]
        self.beams = self.beams.take(stay)
        self.tree.keep_rows(stay)
        return everyone

    def _store(self, everyone: Beams) -> None:
        """Write what is returned back to the users' own rows."""
        if everyone is not self.beams:
            for name in ("final_score", "final_node", "pruned", "expanded"):
                getattr(everyone, name)[self.user] = getattr(self.beams, name)

    def _certified(self, beams: Beams) -> Tensor:
        """Scores only fall, so a list whose worst beats all that was dropped is the true top B."""
        if self.length_penalty != 0:
            return torch.zeros_like(beams.open)
        return beams.pruned <= beams.final_score[:, -1]

    # -- one forward pass for all that wait ------------------------------------------------------------------

    def _compute(self) -> None:
        """Compute the waiting beams' nodes and score what follows.

        "trie": nodes that branch, with the tokens that led there; "full": nodes and the forced stretch below.
        """
        beams, trie = self.beams, self.trie
        waits = beams.open[:, None] & (beams.score > -torch.inf) & ~self._known()
        end = self._stretch_ends() if self.full else beams.node
        new = self.tree.extend(trie, end, beams.computed, beams.slot, waits)
        beams.slot = new.slot
        beams.stretch = torch.where(waits, beams.depth[:, None], beams.stretch)
        beams.computed = torch.where(waits, trie.depth[end].long(), beams.computed)
        # "trie" scores only the ends, the nodes that branch; the others' single continuation is certain.
        scored = new.last if not self.full else torch.ones_like(new.last)
        beams.expanded = beams.expanded.index_add(0, new.user[scored], torch.ones_like(new.user[scored]))
        self._score_ends(new)
        if self.full:
            self._score_stretches(new)

    def _stretch_ends(self) -> Tensor:
        """[U, B] the last node of the forced stretch below each prefix, or of the part that is asked for."""
        trie, end = self.trie, self.trie.forced_end[self.beams.node].long()
        if self.depths is None:
            return end
        beyond = trie.depth[end].long() - (self.depths[self.user] - 1)[:, None]
        for gone in range(int(beyond.max())):
            end = torch.where(beyond > gone, trie.parent[end].long(), end)
        return end

    def _score_ends(self, new: Extension) -> None:
        """The best continuations of each chain's end."""
        beams, last = self.beams, new.last
        user, prefix = new.user[last], new.prefix[last]
        log_probs, child = self.scorer(new.hidden[last], new.node[last], self.user[user])
        best, best_child = self._best(log_probs, child)
        width = max(best.shape[1], beams.next_score.shape[2])
        beams.next_score = widen(beams.next_score, width, -torch.inf)
        beams.next_node = widen(beams.next_node, width, 0)
        beams.next_score[user, prefix] = widen(best, width, -torch.inf)
        beams.next_node[user, prefix] = widen(best_child, width, 0)
        if self.full:  # an end may have one continuation only: the end of its title, or what was cut off
            beams.forced = widen(beams.forced, max(beams.forced.shape[2], int(new.step.max()) + 1), 0.0)
            beams.forced[user, prefix, new.step[last]] = best[:, 0]

    def _score_stretches(self, new: Extension) -> None:
        """The forced continuation of each node before its chain's end."""
        inner = ~new.last
        if bool(inner.any()):
            user = new.user[inner]
            log_probs, _ = self.scorer(new.hidden[inner], new.node[inner], self.user[user])
            self.beams.forced[user, new.prefix[inner], new.step[inner]] = log_probs[:, 0]
