"""The true top K of the whole catalogue, by branch and bound over the trie.

The open prefixes are expanded best first (`bound.py`), and a user is done when the K-th best finished title
beats every open prefix: what is left cannot hold a better one. Beam search (`beam.py`) drops prefixes by rank
instead; comparing the two lists measures pruning.

Axis letters: U users, T prompt tokens, E prefixes expanded at once, K list length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bearray.config import Normalize
from bearray.decoding.bound import BranchAndBound, check_search, room_needed
from bearray.decoding.drive import search_in_batches
from bearray.decoding.result import BeamResult, make_result
from bearray.decoding.scoring import Scorer
from bearray.decoding.title_filter import TitleFilter
from bearray.trie import TokenTrie


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
    check_search(k=k, node_budget=node_budget, expand_width=expand_width)

    def start(scorer: Scorer, ids: Tensor, lengths: Tensor, rows: Tensor) -> _Search:
        return _Search(scorer, ids, lengths, k, node_budget=node_budget, expand_width=expand_width)

    return search_in_batches(
        model,
        input_ids,
        attention_mask,
        trie,
        start,
        normalize=normalize,
        answer_tokens=room_needed(trie, node_budget),
        titles=titles,
        batch_size=batch_size,
        eos_token_id=eos_token_id,
        progress=progress,
    )


class _Search(BranchAndBound):
    """The bar is the K-th best finished title: what does not beat it has no title in the top K below it."""

    results = ("expanded", "proven", "final_score", "final_node")

    def __init__(self, scorer: Scorer, ids: Tensor, lengths: Tensor, k: int, **limits: Any) -> None:
        super().__init__(scorer, ids, lengths, **limits)
        self.final_score = torch.full((len(ids), k), -torch.inf, device=ids.device)
        self.final_node = torch.zeros((len(ids), k), dtype=torch.long, device=ids.device)

    def bar(self) -> Tensor:
        return self.final_score[:, -1]

    def finish(self, score: Tensor, node: Tensor) -> None:
        final = torch.cat([self.final_score, score], dim=1)
        self.final_score, place = final.topk(self.final_score.shape[1], dim=1)
        self.final_node = torch.cat([self.final_node, node], dim=1).gather(1, place)

    def run(self) -> BeamResult:
        found = self.search()
        return make_result(
            self.trie,
            found["final_node"],
            found["final_score"],
            found["proven"],
            self.tree.passes,
            found["expanded"],
        )
