"""How much beam search loses by pruning, measured: for every test case the target's true rank among all
titles, and where the search dropped it.

Supervised fine-tuning raises a title's overall probability, beam search keeps prefixes; a title of high
probability is lost when one of its prefixes is not among the best B (arXiv 2601.22925, section 3). `measure`
decodes test cases by every method and returns one row a case; `summarize` turns such rows into the pruning
rate PR@K, the reasons, and what exact search and wider beams gain.

    PR@K, exact:  of the targets that are truly among the K most probable titles of the catalogue, the share
                  that is not among the B titles of beam search
    PR@K, pool:   the same with the rank among the B titles found and the target itself. Cheap, and too
                  high: titles that were pruned, too, are not seen.

The paper's PR@K does not say which of the two it is. Everything is by overall log-probability (no length
penalty), with the normaliser that decodes. Axis letters: U cases, B beam width, W other widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bearray.config import DecodingConfig
from bearray.task import Case
from bearray.trie import TokenTrie

if TYPE_CHECKING:
    import pandas as pd

WIDTHS = (20, 50, 100)
"""Wider beams that are compared by default."""

COLUMNS = (
    "row",
    "user_id",
    "target",
    "warm",
    "target_score",
    "steps",
    "branching",
    "violations",
    "first_violation",
    "rank",
    "rank_proven",
    "beam_rank",
    "beam_proven",
    "cut_step",
    "cut_gap",
    "cut_violates",
    "pool_rank",
    "width_ranks",
    "exact_rank",
    "exact_proven",
    "expanded",
    "seconds",
)
"""Of the frame that `measure` returns, in this order."""


def measure(
    model: nn.Module,
    cases: Sequence[Case],
    trie: TokenTrie,
    decoding: DecodingConfig,
    *,
    widths: Sequence[int] = WIDTHS,
    node_budget: int | None,
    pad_token_id: int,
    device: torch.device | str,
) -> pd.DataFrame:
    """Decode test cases by beam search, wider beams and exact search, and follow each target.

    Args:
        model: a causal LM on `device`.
        cases: U windows.
        trie: the catalogue.
        decoding: beam width B, normaliser and batch size; its length penalty must be 0.
        widths: [W] other beam widths.
        node_budget: prefixes that exact search, and the search for the true rank, may expand for one case;
            None: until proven.
        pad_token_id: pads prompts. device: where the model is.

    Returns:
        One row a case, in their order, with exactly `COLUMNS`:

        - row, user_id, target (item id), warm: of the case;
        - target_score (float): log-probability of the target's title;
        - steps (int): its tokens, the end included; branching (int): of these, steps with more than one
          valid token;
        - violations (int): steps whose token is not among the B most probable valid ones, against condition
          (3.2); first_violation (int): the first such step from 1 on, 0 for none;
        - rank (float): 0-based, number of titles of higher log-probability than the target; rank_proven
          (bool): False where the budget ended the count, and rank is a lower bound;
        - beam_rank (float): 0-based place in the list of beam search of width B, inf for a miss; beam_proven
          (bool): that list is proven to be the true top B;
        - cut_step (int): token, from 1 on, at which the target's prefix was dropped (`steps` for its end), 0
          if it never was; cut_gap (float): nats that the prefix was below the last one kept, NaN if it
          never was dropped; cut_violates (bool): condition (3.2) was violated at that very step;
        - pool_rank (float): number of the B titles found that have a higher log-probability than the target;
        - width_ranks (list of W floats): as beam_rank, for each of `widths`;
        - exact_rank (float): 0-based place in the list of `exact_top_k` with k = B, inf for a miss;
          exact_proven (bool): that list is proven to be the true top B;
        - expanded (list of W + 2 ints): trie nodes whose continuations were scored, for beam B, each of
          `widths`, and exact search;
        - seconds (list of W + 2 floats): time of the same methods, of all cases together, divided by U.

    Raises:
        ConfigError: a width or budget below 1, or a length penalty: pruning is about probabilities.
        DataError, ModelError: as the decoders.
    """
    raise NotImplementedError


def summarize(
    frame: pd.DataFrame,
    *,
    beam_width: int,
    widths: Sequence[int] = WIDTHS,
    ks: Sequence[int] = (5, 10),
    seed: int = 0,
) -> dict[str, Any]:
    """Pruning rates, their reasons, and the methods compared, from rows of `measure` (any number of shards).

    All intervals are 95 % bootstrap intervals over users, who are drawn with all their cases. A share of
    nothing is None, and so are its ends.

    Args:
        frame: `measure`'s rows.
        beam_width: B that they were measured with. widths: [W], the same.
        ks: list lengths K. seed: of the bootstrap.

    Returns:
        Plain JSON values (string keys, no inf, no NaN):

        {
          "n": cases, "users": users, "beam_width": B, "widths": [...], "ks": [...],
          "rank_proven": share of the cases whose true rank is proven,
          "pruning": {"5": {                                    # PR@K, a key for each K
              "exact": {"rate", "low", "high", "pruned": count, "of": count,
                        "unknown": cases left out, since it is not proven whether they rank among the K},
              "pool": {"rate", "low", "high", "pruned": count, "of": count}}, "10": ...},
          "violations": {                                       # of the exact prunings at K = B
              "pruned": count,
              "any": {"rate", "low", "high", "count"},          # (3.2) is violated somewhere: Figure 4, Prop
              "at_cut": {"rate", "low", "high", "count"}},      # and at the step of the cut
          "cut_steps": {"1": count, "2": ...},                  # of the same prunings; only steps that occur
          "cut_gap": {"median", "q25", "q75"},                  # nats, of the same; None where there are none
          "search": [                                           # beam B, each of `widths`, exact: in this order
              {"method": "beam 10", "width": 10,                # width is None for "exact"
               "hr@5": {"value", "low", "high"}, "ndcg@5": {...}, "hr@10": ..., "ndcg@10": ...,
               "proven": share of lists proven to be the true top B, None where it was not measured,
               "nodes": mean nodes scored a case, "seconds": mean seconds a case}, ...]
        }

    Raises:
        DataError: no rows, or columns that are missing.
    """
    raise NotImplementedError
