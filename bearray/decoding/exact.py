"""The true top K of the whole catalogue, by branch and bound over the trie.

A prefix's log-probability bounds that of every title below it, since each further token can only lower it.
So the open prefixes are expanded best first, and a user is done when the K-th best finished title beats
every open prefix: what is left cannot hold a better one. Beam search (`beam.py`) drops prefixes by rank
instead; comparing the two lists measures pruning.

Axis letters: U users, T prompt tokens, P open prefixes, E prefixes expanded at once, C children, K list
length.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bearray.config import Normalize
from bearray.decoding.drive import search_in_batches
from bearray.decoding.prefixes import PrefixTree
from bearray.decoding.result import BeamResult, make_result
from bearray.decoding.scoring import Scorer
from bearray.decoding.title_filter import TitleFilter
from bearray.errors import ConfigError
from bearray.trie import TokenTrie

_FIRST_STRETCH = 4
"""Tokens of a forced stretch that are computed at once behind a prefix of one token ("full")."""
_USUAL_NODES = 1000
"""Nodes for which a batch makes room where no budget is given."""


def exact_top_k(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    trie: TokenTrie,
    *,
    k: int = 10,
    normalize: Normalize = "trie",
    titles: TitleFilter | None = None,
    node_budget: int | None = None,
    expand_width: int = 16,
    batch_size: int | None = None,
    eos_token_id: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BeamResult:
    """The K titles of highest log-probability among all titles of the catalogue, for each user.

    Args:
        model: a `transformers` causal LM, plain or with a PEFT adapter; put in evaluation mode for the call.
        input_ids: [U, T] prompts, left-padded, on any device.
        attention_mask: [U, T] 1 for a prompt's tokens, 0 for the padding before them.
        trie: the catalogue's titles as tokens.
        k: K, titles returned.
        normalize: "trie" or "full", as in `constrained_beam_search`.
        titles: which titles each user may be given; None: all.
        node_budget: prefixes expanded at most for one user (the prompt counts as one); None: until proven.
            With a budget the search can stop early with the best titles found so far.
        expand_width: E, prefixes of one user expanded in one forward pass. Wider means fewer passes and some
            expansions that one at a time would have been spared.
        batch_size: users searched at a time; None: as many as memory holds.
        eos_token_id: the end of a title; None takes the model's own.
        progress: called with (users done, users in all) after each batch.

    Returns:
        BeamResult on the CPU. `proven` (= `certified`) says whether the list is the true top K, which it
        always is without a budget. With "full" and a model that finds the titles' later tokens unlikely, a
        prefix says little about its titles and the proof may need much of the catalogue: set a budget.
        `expanded` counts the prefixes whose continuations were scored.

    Raises:
        ConfigError, DataError, ModelError: as `constrained_beam_search`.
    """
    for name, value in (("k", k), ("node_budget", node_budget), ("expand_width", expand_width)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1")

    def start(scorer: Scorer, ids: Tensor, lengths: Tensor, rows: Tensor) -> _Search:
        return _Search(scorer, ids, lengths, k, node_budget, expand_width)

    return search_in_batches(
        model,
        input_ids,
        attention_mask,
        trie,
        start,
        normalize=normalize,
        answer_tokens=min(node_budget or _USUAL_NODES, len(trie)),
        titles=titles,
        batch_size=batch_size,
        eos_token_id=eos_token_id,
        progress=progress,
    )


class _Search:
    """One batch of users. `open_*` are [U, P], by falling score, -inf where a user has fewer than P open
    prefixes."""

    def __init__(
        self,
        scorer: Scorer,
        ids: Tensor,
        lengths: Tensor,
        k: int,
        node_budget: int | None,
        expand_width: int,
    ) -> None:
        self.scorer = scorer
        self.trie = trie = scorer.trie
        self.normalize = scorer.normalize
        self.k = k
        self.budget = node_budget
        self.expand_width = expand_width
        users, device = len(ids), ids.device
        self.tree = PrefixTree(scorer.network, ids, lengths, trie.max_depth, reserve=256)
        self.user = torch.arange(users, device=device)
        self.final_score = torch.full((users, k), -torch.inf, device=device)
        self.final_node = torch.zeros((users, k), dtype=torch.long, device=device)
        self.expanded = torch.ones(users, dtype=torch.long, device=device)
        self.proven = torch.zeros(users, dtype=torch.bool, device=device)
        self.open_score = torch.zeros(users, 0, device=device)
        self.open_node = torch.zeros(users, 0, dtype=torch.long, device=device)
        self.open_slot, self.open_computed = self.open_node, self.open_node
        root = torch.zeros(users, 1, dtype=torch.long, device=device)
        log_probs, child = scorer(self.tree.root_hidden, root[:, 0], self.user, same_node=True)
        self._add(log_probs[:, None], child[:, None], root, root - 1)

    def run(self) -> BeamResult:
        names = ("final_score", "final_node", "expanded", "proven")
        everyone = {name: getattr(self, name).clone() for name in names}
        while True:
            # Open prefixes are sorted and those that cannot win are dropped: none left is the proof.
            self.proven = (self.open_score <= self.final_score[:, -1:]).all(1)
            done = self.proven if self.budget is None else self.proven | (self.expanded >= self.budget)
            stay = (~done).nonzero()[:, 0]
            if len(stay) <= 0.75 * len(done):
                for name in names:
                    everyone[name][self.user] = getattr(self, name)
                if not len(stay):
                    break
                self._keep_rows(stay)
                done = done[stay]
            self._expand(~done)
        return make_result(
            self.trie,
            everyone["final_node"],
            everyone["final_score"],
            everyone["proven"],
            self.tree.passes,
            everyone["expanded"],
        )

    def _keep_rows(self, rows: Tensor) -> None:
        self.tree.keep_rows(rows)
        for name in ("user", "final_score", "final_node", "expanded", "proven"):
            setattr(self, name, getattr(self, name)[rows])
        for name in ("open_score", "open_node", "open_slot", "open_computed"):
            setattr(self, name, getattr(self, name)[rows])

    def _expand(self, active: Tensor) -> None:
        """Compute the best open prefixes of each active user and put their continuations in their place."""
        width = min(self.expand_width, self.open_score.shape[1])
        score, node = self.open_score[:, :width], self.open_node[:, :width]
        chosen = active[:, None] & (score > self.final_score[:, -1:])
        if self.budget is not None:
            left = (self.budget - self.expanded)[:, None]
            chosen &= torch.arange(width, device=node.device) < left
        trie = self.trie
        end = self._stretch_end(node) if self.normalize == "full" else node
        new = self.tree.extend(trie, end, self.open_computed[:, :width], self.open_slot[:, :width], chosen)
        self.open_score = self.open_score.clone()
        self.open_score[:, :width].masked_fill_(chosen, -torch.inf)
        self.expanded = self.expanded + chosen.sum(1)

        total = score
        inner = ~new.last
        if self.normalize == "full" and bool(inner.any()):
            # An open prefix is one token below what is computed; the forced tokens behind it cost theirs.
            log_probs, _ = self.scorer(new.hidden[inner], new.node[inner], self.user[new.user[inner]])
            index = new.user[inner] * width + new.prefix[inner]
            total = score.flatten().index_add(0, index, log_probs[:, 0]).view_as(score)
        user, prefix = new.user[new.last], new.prefix[new.last]
        log_probs, child = self.scorer(new.hidden[new.last], new.node[new.last], self.user[user])
        log_probs = log_probs + total[user, prefix][:, None]
        shape = (len(score), width, log_probs.shape[1])
        all_scores = torch.full(shape, -torch.inf, device=score.device)
        all_scores[user, prefix] = log_probs
        children = torch.zeros(shape, dtype=torch.long, device=score.device)
        children[user, prefix] = child
        self._add(all_scores, children, end, new.slot)

    def _stretch_end(self, node: Tensor) -> Tensor:
        """[U, E] how far the forced stretch below a prefix is computed at once.

        Not always to its end: the tokens on the way may already cost too much. So the first look is short,
        and each later one reaches about twice as deep.
        """
        end = self.trie.forced_end[node].long()
        limit = _FIRST_STRETCH + self.trie.depth[node] - 1
        hops = torch.where(self.trie.depth[end] - self.trie.depth[node] < limit, 0, limit - 1)
        near = node
        for hop in range(int(hops.max())):
            near = torch.where(hop < hops, self.trie.child_start[near].long() + 1, near)
        return torch.where(hops == 0, end, near)

    def _add(self, score: Tensor, child: Tensor, parent: Tensor, slot: Tensor) -> None:
        """File scored continuations: titles among the finished, prefixes among the open that can still win.

        Args:
            score: [U, E, C] log-probability of each continuation, from the prompt on; -inf for none.
            child: [U, E, C] its node, -1 for the end of the parent's title.
            parent: [U, E] nodes.
            slot: [U, E] their slots.
        """
        trie = self.trie
        ends = child < 0
        node = torch.where(ends, parent[..., None], child)
        if self.normalize == "trie":  # forced tokens are certain: go on to the stretch's end, maybe a title's
            skipped = torch.where(ends, node, trie.forced_end[node].long())
            leaf = ~ends & (trie.child_start[skipped + 1] == trie.child_start[skipped])
            node, ends = skipped, ends | leaf
        finished = torch.where(ends, score, -torch.inf).flatten(1)
        final = torch.cat([self.final_score, finished], dim=1)
        self.final_score, place = final.topk(self.k, dim=1)
        self.final_node = torch.cat([self.final_node, node.flatten(1)], dim=1).gather(1, place)

        waiting = torch.where(ends, -torch.inf, score).flatten(1)
        wide = (-1, -1, child.shape[2])
        slots = slot[..., None].expand(wide).flatten(1)
        computed = trie.depth[parent].long()[..., None].expand(wide).flatten(1)
        every = torch.cat([self.open_score, waiting], dim=1)
        # A prefix that does not beat the K-th finished title has no better title below it.
        every = every.masked_fill(every <= self.final_score[:, -1:], -torch.inf)
        kept = int((every > -torch.inf).sum(1).max())
        self.open_score, place = every.topk(kept, dim=1)
        self.open_node = torch.cat([self.open_node, node.flatten(1)], dim=1).gather(1, place)
        self.open_slot = torch.cat([self.open_slot, slots], dim=1).gather(1, place)
        self.open_computed = torch.cat([self.open_computed, computed], dim=1).gather(1, place)
