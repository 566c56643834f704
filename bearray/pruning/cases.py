"""Test cases decoded by beam search, wider beams and exact search, and each target followed.

Axis letters: U cases, B beam width, W other widths, S steps of a title.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from bearray.batching import left_pad
from bearray.config import DecodingConfig
from bearray.decoding import BeamResult, constrained_beam_search, exact_top_k
from bearray.decoding.beam import guided_beam_search
from bearray.decoding.bound import check_search
from bearray.decoding.network import open_network
from bearray.decoding.target import TitleScores, score_noise, score_titles, target_rank
from bearray.decoding.trace import TargetTrace
from bearray.errors import ConfigError
from bearray.metrics import rank_of_target
from bearray.task import Case
from bearray.trie import TokenTrie

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
        decoding: beam width B, normaliser and batch size; its length penalty must be 0. The method and what
            may be recommended are not looked at: beam search over the whole catalogue is what is analysed.
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
          if it never was; cut_gap (float): nats that the prefix was below the bar of that step, NaN if it
          never was dropped; cut_violates (bool): condition (3.2) was violated at that very step;
        - pool_rank (float): number of the B titles found that have a higher log-probability than the target;
        - width_ranks (list of W floats): as beam_rank, for each of `widths`;
        - exact_rank (float): 0-based place in the list of `exact_top_k` with k = B, inf for a miss;
          exact_proven (bool): that list is proven to be the true top B;
        - expanded (list of W + 2 ints): trie nodes whose continuations were scored, for beam B, each of
          `widths`, and exact search;
        - seconds (list of W + 2 floats): time of the same methods, of all cases together, divided by U.

    One score computed twice, in batches of different shape, differs by rounding. Whether and where a target
    was dropped is therefore read off the search itself. Where scores of different passes have to be compared
    (rank, and pool_rank of a missed target), a title counts as better only if it is so by more than
    `bearray.decoding.target.score_noise`: 4e-6 of the score in float32, 4e-3 in bfloat16. A cut_gap within
    rounding is 0.

    Raises:
        ConfigError: a width or budget below 1, or a length penalty: pruning is about probabilities.
        DataError, ModelError: as the decoders.
    """
    if decoding.length_penalty:
        raise ConfigError(
            f"decoding.length_penalty is {decoding.length_penalty}; pruning is about probability: set it to 0"
        )
    for width in widths:
        check_search(widths=width)
    check_search(node_budget=node_budget)
    if not cases:
        return pd.DataFrame(columns=list(COLUMNS))
    ids, mask = (tensor.to(device) for tensor in left_pad([c.prompt for c in cases], pad_token_id))
    trie, titles, b = trie.to(ids.device), [c.target_title for c in cases], decoding.beam_width
    inputs = (model, ids, mask, trie)
    options: dict[str, Any] = {"normalize": decoding.normalize, "batch_size": decoding.batch_size}
    seconds: list[float] = []

    def timed(search: Callable[..., BeamResult], **settings: Any) -> BeamResult:
        began = _now(ids.device)
        result = search(*inputs, **settings, **options)
        seconds.append((_now(ids.device) - began) / len(cases))
        return result

    target = score_titles(*inputs, titles, beam_width=b, **options)
    trace = TargetTrace(trie, titles)
    beam = timed(guided_beam_search, beam_width=b, observer=trace)
    wider = [timed(constrained_beam_search, beam_width=w) for w in widths]
    exact = timed(exact_top_k, k=b, node_budget=node_budget)
    true = target_rank(*inputs, titles, node_budget=node_budget, **options)

    wanted = np.array(titles)
    beam_rank = rank_of_target(beam.title_ids.numpy(), wanted)
    noise = score_noise(target.log_prob, open_network(model).dtype)
    lists = [rank_of_target(result.title_ids.numpy(), wanted) for result in wider]
    first = torch.where(target.violated.any(1), target.violated.int().argmax(1) + 1, 0)
    columns = {
        "row": [c.row for c in cases],
        "user_id": [c.user for c in cases],
        "target": [c.target_item for c in cases],
        "warm": [c.warm for c in cases],
        "target_score": target.log_prob.double().numpy(),
        "steps": target.steps.numpy(),
        "branching": (target.valid > 1).sum(1).numpy(),
        "violations": target.violated.sum(1).numpy(),
        "first_violation": first.numpy(),
        "rank": true.ranks.double().numpy(),
        "rank_proven": true.proven.numpy(),
        "beam_rank": beam_rank,
        "beam_proven": beam.certified.numpy(),
        **_cuts(target, trace),
        "pool_rank": _pool_rank(beam, beam_rank, (target.log_prob + noise).numpy()),
        "width_ranks": np.array(lists).reshape(len(lists), len(cases)).T.tolist(),
        "exact_rank": rank_of_target(exact.title_ids.numpy(), wanted),
        "exact_proven": exact.proven.numpy(),
        "expanded": torch.stack([r.expanded for r in (beam, *wider, exact)], dim=1).tolist(),
        "seconds": [list(seconds) for _ in cases],
    }
    return pd.DataFrame(columns)[list(COLUMNS)]


def _cuts(target: TitleScores, trace: TargetTrace) -> dict[str, np.ndarray]:
    """The columns that say where, by how much and with what violation the search dropped each target."""
    step, bar = trace.cut_step.cpu(), trace.bar.cpu()
    place = (step - 1).clamp(min=0)[:, None]
    prefix = target.step_log_prob.cumsum(1).gather(1, place)[:, 0]
    return {
        "cut_step": step.numpy(),
        "cut_gap": (bar - prefix).clamp(min=0).double().numpy(),  # NaN stays NaN
        "cut_violates": (target.violated.gather(1, place)[:, 0] & (step > 0)).numpy(),
    }


def _pool_rank(beam: BeamResult, beam_rank: np.ndarray, missed_bar: np.ndarray) -> np.ndarray:
    """Titles found that beat the target [U]: where it was found by its score in that list, which the others
    were computed with."""
    scores = beam.scores.numpy()
    found = np.isfinite(beam_rank)
    place = np.where(found, beam_rank, 0).astype(np.int64)
    own = np.take_along_axis(scores, place[:, None], axis=1)[:, 0]
    ranks: np.ndarray = (scores > np.where(found, own, missed_bar)[:, None]).sum(1).astype(np.float64)
    return ranks


def _now(device: torch.device) -> float:
    """Seconds, when the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
