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

Axis letters: U users, T prompt tokens, B beams, C kept continuations of a prefix (at most 2B), Q tokens fed
at once, D hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from bearray.config import Normalize
from bearray.decoding.drive import search_in_batches
from bearray.decoding.network import Network
from bearray.decoding.prefixes import Extension, PrefixTree
from bearray.decoding.result import BeamResult, make_result
from bearray.decoding.scoring import check_normalize, next_log_probs
from bearray.errors import ConfigError
from bearray.trie import TokenTrie


def constrained_beam_search(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    trie: TokenTrie,
    *,
    beam_width: int = 10,
    normalize: Normalize = "trie",
    length_penalty: float = 0.0,
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
        batch_size: users decoded at a time, of similar prompt length; None takes all at once.
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
    check_normalize(normalize)
    if beam_width < 1:
        raise ConfigError(f"beam_width is {beam_width}; it must be at least 1")
    if not math.isfinite(length_penalty):
        raise ConfigError(f"length_penalty is {length_penalty}; it must be finite")

    def start(network: Network, trie: TokenTrie, ids: Tensor, lengths: Tensor) -> _Search:
        return _Search(network, trie, ids, lengths, beam_width, normalize, length_penalty)

    return search_in_batches(
        model,
        input_ids,
        attention_mask,
        trie,
        start,
        batch_size=batch_size,
        eos_token_id=eos_token_id,
        progress=progress,
    )


@dataclass(eq=False)
class _Beams:
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
    """[U, B, L] log-probabilities of the stretch's forced tokens ("full" only)."""
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
    depth: Tensor
    """[U] tokens in each prefix."""
    open: Tensor
    """[U] not done."""
    expanded: Tensor
    """[U] nodes scored so far."""

    def take(self, rows: Tensor) -> _Beams:
        return _Beams(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def put(self, rows: Tensor, part: _Beams) -> None:
        for f in fields(self):
            getattr(self, f.name)[rows] = getattr(part, f.name)


_PER_BEAM = ("node", "slot", "computed", "stretch", "forced")


class _Search:
    """One batch of users."""

    def __init__(
        self,
        network: Network,
        trie: TokenTrie,
        ids: Tensor,
        lengths: Tensor,
        beam_width: int,
        normalize: Normalize,
        length_penalty: float,
    ) -> None:
        self.network = network
        self.trie = trie
        self.width = beam_width
        self.normalize = normalize
        self.length_penalty = length_penalty
        self.tree = PrefixTree(network, ids, lengths, trie.max_depth)
        self.user = torch.arange(len(ids), device=ids.device)
        self.beams = self._start(len(ids), ids.device)

    def _start(self, users: int, device: torch.device) -> _Beams:
        """One live beam at the root, its continuations scored from the prompt's last token."""
        shape = (users, self.width)
        score = torch.full(shape, -torch.inf, device=device)
        score[:, 0] = 0.0
        root = torch.zeros(users, dtype=torch.long, device=device)
        log_probs, child = next_log_probs(
            self.network, self.trie, self.tree.root_hidden, root, self.normalize, same_node=True
        )
        best, best_child = self._best(log_probs, child)

        def zeros() -> Tensor:
            return torch.zeros(shape, dtype=torch.long, device=device)

        return _Beams(
            score=score,
            node=zeros(),
            slot=zeros() - 1,
            computed=zeros(),
            stretch=zeros(),
            forced=best[:, None, :1].expand(-1, self.width, -1).clone(),
            next_score=best[:, None].expand(-1, self.width, -1).clone(),
            next_node=best_child[:, None].expand(-1, self.width, -1).clone(),
            final_score=torch.full(shape, -torch.inf, device=device),
            final_node=zeros(),
            pruned=torch.full((users,), -torch.inf, device=device),
            depth=root.clone(),
            open=torch.ones(users, dtype=torch.bool, device=device),
            expanded=root + 1,
        )

    def _best(self, log_probs: Tensor, child: Tensor) -> tuple[Tensor, Tensor]:
        """The best 2B continuations of each row: more of one prefix can never be among a user's best 2B."""
        best, column = log_probs.topk(min(2 * self.width, log_probs.shape[1]), dim=1)
        return best, child.gather(1, column)

    def run(self) -> BeamResult:
        everyone = self.beams
        while True:
            beams = self.beams
            known = beams.open & (self._known() | (beams.score == -torch.inf)).all(1)
            rows = known.nonzero()[:, 0]
            if len(rows):
                part = beams.take(rows)
                self._advance(part)
                beams.put(rows, part)
            elif bool(beams.open.any()):
                everyone = self._leave(everyone)
                self._compute()
            else:
                break
        self._store(everyone)
        return make_result(
            self.trie,
            everyone.final_node,
            everyone.final_score,
            self._certified(everyone),
            self.tree.passes,
            everyone.expanded,
        )

    # -- who waits for the model, who leaves -----------------------------------------------------------------

    def _known(self) -> Tensor:
        """[U, B] the continuations of the beam's node can be told without the model."""
        beams = self.beams
        reached = beams.computed >= beams.depth[:, None]
        if self.normalize == "full":
            return reached
        return reached | (self.trie.child_count(beams.node) == 1)

    def _leave(self, everyone: _Beams) -> _Beams:
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

    def _store(self, everyone: _Beams) -> None:
        """Write what is returned back to the users' own rows."""
        if everyone is not self.beams:
            for name in ("final_score", "final_node", "pruned", "expanded"):
                getattr(everyone, name)[self.user] = getattr(self.beams, name)

    def _certified(self, beams: _Beams) -> Tensor:
        """Scores only fall, so a list whose worst beats all that was dropped is the true top B."""
        if self.length_penalty != 0:
            return torch.zeros_like(beams.open)
        return beams.pruned <= beams.final_score[:, -1]

    # -- one depth of beam search, on what is known
    # ---------------------------------------------------------------

    def _advance(self, beams: _Beams) -> None:
        width = self.width
        step_score, step_node = self._continuations(beams)
        kept = step_score.shape[2]
        total = (beams.score[..., None] + step_score).flatten(1)
        score, index = total.topk(min(2 * width, total.shape[1]), dim=1)
        score, index = _widen(score, 2 * width, -torch.inf), _widen(index, 2 * width, 0)
        beam = index // kept
        child = step_node.flatten(1).gather(1, index)
        ends = (child < 0) & (score > -torch.inf)
        rank = torch.arange(2 * width, device=score.device)
        stored = ends & (rank < width)

        length = (beams.depth + 1).float()[:, None] ** self.length_penalty
        final = torch.cat([beams.final_score, torch.where(stored, score / length, -torch.inf)], dim=1)
        final_node = torch.cat([beams.final_node, beams.node.gather(1, beam)], dim=1)
        beams.final_score, place = final.topk(width, dim=1)
        beams.final_node = final_node.gather(1, place)

        running = score.masked_fill(ends, -torch.inf)
        dropped = torch.where(ends & ~stored, score, -torch.inf).amax(1)
        best, place = running.topk(width + 1, dim=1)
        # Anything not even listed scores at most the last one listed (which is -inf unless the list is full).
        beams.pruned = torch.stack([beams.pruned, dropped, best[:, width], score[:, -1]]).amax(0)
        place = place[:, :width]
        parent = beam.gather(1, place)
        beams.score = best[:, :width].contiguous()
        for name in _PER_BEAM:
            old = getattr(beams, name)
            index = parent if old.ndim == 2 else parent[..., None].expand(-1, -1, old.shape[2])
            setattr(beams, name, old.gather(1, index))
        if self.normalize == "full":  # a beam in a scored stretch still needs what was found at its end
            wide = parent[..., None].expand(-1, -1, kept)
            beams.next_score = beams.next_score.gather(1, wide)
            beams.next_node = beams.next_node.gather(1, wide)
        beams.node = torch.where(beams.score > -torch.inf, child.gather(1, place), 0)
        beams.depth = beams.depth + 1
        best_possible = beams.score[:, 0] / length[:, 0]
        beams.open = (best_possible > beams.final_score[:, -1]) & (beams.score[:, 0] > -torch.inf)

    def _continuations(self, beams: _Beams) -> tuple[Tensor, Tensor]:
        """(log-probabilities, nodes) [U, B, C] of each beam's continuations; a forced one is in the first
        column.
        """
        single = self.trie.child_count(beams.node) == 1
        edge = self.trie.child_start[beams.node].long()
        only = torch.where(self.trie.terminal[beams.node] >= 0, -1, edge + 1)
        score, node = beams.next_score.clone(), beams.next_node.clone()
        if self.normalize == "full":
            step = (beams.depth[:, None] - beams.stretch).clamp(0, beams.forced.shape[2] - 1)
            forced = beams.forced.gather(2, step[..., None])[..., 0]
        else:
            forced = torch.zeros_like(beams.score)
        score.masked_fill_(single[..., None], -torch.inf)
        score[..., 0] = torch.where(single, forced, score[..., 0])
        node[..., 0] = torch.where(single, only, node[..., 0])
        return score, node

    # -- one forward pass for all that wait
    # ---------------------------------------------------------------------

    def _compute(self) -> None:
        """Compute the waiting beams' nodes and score what follows.

        "trie": nodes that branch, with the tokens that led there; "full": nodes and the forced stretch below.
        """
        beams, trie = self.beams, self.trie
        waits = beams.open[:, None] & (beams.score > -torch.inf) & ~self._known()
        end = trie.forced_end[beams.node].long() if self.normalize == "full" else beams.node
        new = self.tree.extend(trie, end, beams.computed, beams.slot, waits)
        beams.slot = new.slot
        beams.stretch = torch.where(waits, beams.depth[:, None], beams.stretch)
        beams.computed = torch.where(waits, trie.depth[end].long(), beams.computed)
        # "trie" scores only the ends, the nodes that branch; the others' single continuation is certain.
        scored = new.last if self.normalize == "trie" else torch.ones_like(new.last)
        beams.expanded = beams.expanded.index_add(0, new.user[scored], torch.ones_like(new.user[scored]))
        self._score_ends(new)
        if self.normalize == "full":
            self._score_stretches(new)

    def _score_ends(self, new: Extension) -> None:
        """The best continuations of each chain's end."""
        beams, last = self.beams, new.last
        user, prefix = new.user[last], new.prefix[last]
        log_probs, child = next_log_probs(
            self.network, self.trie, new.hidden[last], new.node[last], self.normalize
        )
        best, best_child = self._best(log_probs, child)
        width = max(best.shape[1], beams.next_score.shape[2])
        beams.next_score = _widen(beams.next_score, width, -torch.inf)
        beams.next_node = _widen(beams.next_node, width, 0)
        beams.next_score[user, prefix] = _widen(best, width, -torch.inf)
        beams.next_node[user, prefix] = _widen(best_child, width, 0)
        if self.normalize == "full":  # a stretch that ends at a leaf ends with the forced end of the title
            beams.forced = _widen(beams.forced, max(beams.forced.shape[2], int(new.step.max()) + 1), 0.0)
            beams.forced[user, prefix, new.step[last]] = best[:, 0]

    def _score_stretches(self, new: Extension) -> None:
        """The forced continuation of each node before its chain's end."""
        inner = ~new.last
        if bool(inner.any()):
            log_probs, _ = next_log_probs(
                self.network, self.trie, new.hidden[inner], new.node[inner], self.normalize
            )
            self.beams.forced[new.user[inner], new.prefix[inner], new.step[inner]] = log_probs[:, 0]


def _widen(values: Tensor, width: int, fill: float) -> Tensor:
    """Pad the last axis to `width`."""
    return nn.functional.pad(values, (0, width - values.shape[-1]), value=fill)
