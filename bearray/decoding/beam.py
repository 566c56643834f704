"""Constrained beam search over a token trie, with the answers of `transformers.generate` and a fraction of
its work.

Canonical (what is returned): `generate` with `prefix_allowed_tokens_fn`, `num_beams = num_return_sequences =
B`, `do_sample=False`, `early_stopping=False` and enough new tokens. At each depth the best 2B continuations
of a user's B prefixes are taken; those that end a title are stored if they are among the best B (score /
length^penalty, the end counted), the best B of the others go on; the user is done when B titles are stored
and the best prefix, at its present length, cannot beat the worst of them.

Faster, by construction and not by approximation:
- a user's B prefixes are B query positions of one row behind a prompt that is computed once (`prefixes.py`);
- normalize="trie": a token with one valid successor has log-probability 0; it costs a forward pass only when
  its keys are needed below, and then shares that pass;
- normalize="full": a stretch of forced tokens is scored in one pass, then replayed depth by depth;
- a user advances on what is known until a prefix must be scored; one pass then serves all users that wait;
  finished users leave the batch.

What a search knows and how it goes down one depth is in `beams.py`; here is who waits for the model. Axis
letters: U users, T prompt tokens, B beams, C kept continuations of a prefix (at most 2B).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from bearray.config import Normalize
from bearray.decoding.beams import Beams, widen
from bearray.decoding.drive import search_in_batches
from bearray.decoding.prefixes import Extension, PrefixTree
from bearray.decoding.result import BeamResult, make_result
from bearray.decoding.scoring import Guide, Scorer
from bearray.decoding.title_filter import LivingTitles, TitleFilter
from bearray.errors import ConfigError
from bearray.trie import TokenTrie


class Observer(Protocol):
    """Watches the search, depth by depth."""

    every_depth: bool
    """It must be told also of depths at which none of a user's prefixes has a choice: nothing changes there
    but the depth."""

    def advanced(self, users: Tensor, beams: Beams, bar: Tensor, end_bar: Tensor) -> None:
        """Some users [U'] (rows of the input) went down one depth; the bars are those of `Beams.advance`."""
        ...


def constrained_beam_search(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    trie: TokenTrie,
    *,
    beam_width: int = 10,
    normalize: Normalize = "trie",
    length_penalty: float = 0.0,
    titles: TitleFilter | None = None,
    batch_size: int | None = None,
    eos_token_id: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BeamResult:
    """The B most probable titles that beam search of width B finds, for each user.

    Args:
        model: a `transformers` causal LM, plain or with a PEFT adapter; put in evaluation mode for the call.
        input_ids: [U, T] prompts, left-padded, on any device.
        attention_mask: [U, T] 1 for a prompt's tokens, 0 for the padding before them.
        trie: the catalogue's titles as tokens.
        beam_width: B, prefixes kept and titles returned.
        normalize: "trie" divides by the probability of all valid next tokens (`renormalize_logits=True`),
            "full" by that of the whole vocabulary (`renormalize_logits=False`).
        length_penalty: a title's score is its log-probability / (tokens, end included) ** length_penalty.
        titles: which titles each user may be given; None: all.
        batch_size: users decoded at a time, of similar prompt length; None: as many as memory holds.
        eos_token_id: the end of a title; None takes the model's own (the first, where its config lists
            several).
        progress: called with (users done, users in all) after each batch.

    Returns:
        BeamResult on the CPU; `certified` says where the list is proven to be the true top B.

    Raises:
        ConfigError: a beam width or batch size below 1, an unknown normalizer, a length penalty that is not
            finite.
        DataError: prompts that are empty or not left-padded.
        ModelError: a model that cannot be decoded, or NaN logits.
    """
    return guided_beam_search(
        model,
        input_ids,
        attention_mask,
        trie,
        beam_width=beam_width,
        normalize=normalize,
        length_penalty=length_penalty,
        titles=titles,
        batch_size=batch_size,
        eos_token_id=eos_token_id,
        progress=progress,
    )


def guided_beam_search(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    trie: TokenTrie,
    *,
    beam_width: int = 10,
    normalize: Normalize = "trie",
    length_penalty: float = 0.0,
    titles: TitleFilter | None = None,
    make_guide: Callable[[TokenTrie, Tensor, LivingTitles | None], Guide] | None = None,
    observer: Observer | None = None,
    batch_size: int | None = None,
    eos_token_id: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BeamResult:
    """`constrained_beam_search` with two more openings, for decoders built on it and for analyses.

    Args:
        make_guide: (trie, a batch's rows, its living titles) -> what changes its scores. Scores must not rise
            with a title's length, or `certified` would not hold.
        observer: is told of every depth.
    """
    if beam_width < 1:
        raise ConfigError(f"beam_width is {beam_width}; it must be at least 1")
    if not math.isfinite(length_penalty):
        raise ConfigError(f"length_penalty is {length_penalty}; it must be finite")

    def start(scorer: Scorer, ids: Tensor, lengths: Tensor, rows: Tensor) -> BeamSearch:
        tree = PrefixTree(scorer.network, ids, lengths, scorer.trie.max_depth)
        return BeamSearch(
            scorer, tree, rows, beam_width=beam_width, length_penalty=length_penalty, observer=observer
        )

    return search_in_batches(
        model,
        input_ids,
        attention_mask,
        trie,
        start,
        normalize=normalize,
        answer_tokens=beam_width * trie.max_depth,
        titles=titles,
        make_guide=make_guide,
        batch_size=batch_size,
        eos_token_id=eos_token_id,
        progress=progress,
    )


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
            rows = self._skip(known).nonzero()[:, 0]
            if len(rows):
                part = beams if len(rows) == len(known) else beams.take(rows)
                bars = part.advance(self.trie, self.length_penalty)
                users = self.user[rows]
                if self.depths is not None:
                    part.open = part.open & (part.depth < self.depths[users])
                if self.observer is not None:
                    self.observer.advanced(self.rows[users], part, *bars)
                if part is not beams:
                    beams.put(rows, part)
            elif bool(known.any()):
                continue
            elif bool(beams.open.any()):
                everyone = self._leave(everyone)
                self._compute()
            else:
                break
        self._store(everyone)
        return everyone

    def _skip(self, known: Tensor) -> Tensor:
        """Let users [U] whose prefixes are all forced go down to where the first one is not; the others."""
        if not self._may_skip:
            return known
        # Not from the root: whoever watches was not told of it.
        known_below = known & (self.beams.depth > 0)
        tokens = torch.where(known_below, self.beams.forced_ahead(self.trie), 0)
        if self.depths is not None:
            tokens = torch.minimum(tokens, self.depths[self.user] - self.beams.depth).clamp(min=0)
        self.beams.skip(self.trie, tokens)
        if self.depths is not None:
            self.beams.open = self.beams.open & (self.beams.depth < self.depths[self.user])
        return known & (tokens == 0)

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
        end = trie.forced_end[beams.node].long() if self.full else beams.node
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
        if self.full:  # a stretch that ends at a leaf ends with the forced end of the title
            beams.forced = widen(beams.forced, max(beams.forced.shape[2], int(new.step.max()) + 1), 0.0)
            beams.forced[user, prefix, new.step[last]] = best[:, 0]

    def _score_stretches(self, new: Extension) -> None:
        """The forced continuation of each node before its chain's end."""
        inner = ~new.last
        if bool(inner.any()):
            user = new.user[inner]
            log_probs, _ = self.scorer(new.hidden[inner], new.node[inner], self.user[user])
            self.beams.forced[user, new.prefix[inner], new.step[inner]] = log_probs[:, 0]
