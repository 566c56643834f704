"""Rows of `measure` in numbers: pruning rates, their reasons, and the methods compared.

Axis letters: U cases, W widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bearray.errors import DataError
from bearray.metrics import gains, hits
from bearray.pruning.cases import COLUMNS, WIDTHS
from bearray.stats import bootstrap_interval

Bools = NDArray[np.bool_]


def summarize(
    frame: pd.DataFrame,
    *,
    beam_width: int,
    widths: Sequence[int] = WIDTHS,
    ks: Sequence[int] = (5, 10),
    seed: int = 0,
) -> dict[str, Any]:
    """Pruning rates, their reasons, and the methods compared, from rows of `measure` (any number of shards).

    All intervals are 95 % bootstrap intervals over users, who are drawn with all their cases that count; a
    rate is the ratio of two sums over the users drawn. A share of nothing is None, and so are its ends. The
    interval of a rate that is 0 or 1 for all users has no width: look at the counts.

    Args:
        frame: `measure`'s rows.
        beam_width: B that they were measured with. widths: [W], the same.
        ks: list lengths K. With K above B, a search that prunes nothing still misses titles.
        seed: of the bootstrap.

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
          "search": [                                           # in order: beam B, each of `widths`, exact
              {"method": "beam 10", "width": 10,                # width is None for "exact"
               "hr@5": {"value", "low", "high"}, "ndcg@5": {...}, "hr@10": ..., "ndcg@10": ...,
               "proven": share of lists proven to be the true top B, None where it was not measured,
               "nodes": mean nodes scored a case, "seconds": mean seconds a case}, ...]
        }

        A title of the very probability of the B-th one may be missed without a cut; cut_steps counts it as
        "0". That apart, every pruning at K <= B has its step.

    Raises:
        DataError: no rows, a column that is missing, or lists that are not of `widths`.
        ValueError: a K below 1.
    """
    _check(frame, len(widths))
    users = frame["user_id"].to_numpy()
    missed = np.isinf(_floats(frame, "beam_rank"))
    pool_rank = _floats(frame, "pool_rank")

    def rate(of: Bools, where: Bools, count: str) -> dict[str, Any]:
        if not where.any():
            return {"rate": None, "low": None, "high": None, count: 0}
        mean, low, high = bootstrap_interval(of[where].astype(np.float64), users[where], seed=seed)
        return {"rate": mean, "low": low, "high": high, count: int(of[where].sum())}

    pruning = {}
    for k in ks:
        top, unknown = _truly_among(frame, k, beam_width)
        pool = pool_rank < k
        pruning[str(k)] = {
            "exact": {
                **rate(missed, top, "pruned"),
                "of": int(top.sum()),
                "unknown": int(unknown.sum()),
            },
            "pool": {**rate(missed, pool, "pruned"), "of": int(pool.sum())},
        }

    pruned = _truly_among(frame, beam_width, beam_width)[0] & missed
    steps, counts = np.unique(frame["cut_step"].to_numpy(dtype=np.int64)[pruned], return_counts=True)
    gaps = _floats(frame, "cut_gap")[pruned]
    gaps = gaps[~np.isnan(gaps)]
    q25, median, q75 = np.quantile(gaps, [0.25, 0.5, 0.75]).tolist() if len(gaps) else (None, None, None)
    return {
        "n": len(frame),
        "users": len(np.unique(users)),
        "beam_width": beam_width,
        "widths": [int(width) for width in widths],
        "ks": [int(k) for k in ks],
        "rank_proven": float(frame["rank_proven"].mean()),
        "pruning": pruning,
        "violations": {
            "pruned": int(pruned.sum()),
            "any": rate(frame["violations"].to_numpy() > 0, pruned, "count"),
            "at_cut": rate(frame["cut_violates"].to_numpy(dtype=bool), pruned, "count"),
        },
        "cut_steps": {str(step): int(count) for step, count in zip(steps, counts, strict=True)},
        "cut_gap": {"median": median, "q25": q25, "q75": q75},
        "search": _methods(frame, beam_width, widths, ks, seed),
    }


def _truly_among(frame: pd.DataFrame, k: int, beam_width: int) -> tuple[Bools, Bools]:
    """[U] the target is proven to be among the K most probable titles; [U] that is not known.

    Not known: the count of better titles ended early, below K, and the exact list does not tell either. A
    proven exact list of B tells for K <= B, and for any K where the target stands in it.
    """
    rank, counted = _floats(frame, "rank"), frame["rank_proven"].to_numpy(dtype=bool)
    listed = _floats(frame, "exact_rank")
    list_proven = frame["exact_proven"].to_numpy(dtype=bool)
    told = list_proven & ((k <= beam_width) | np.isfinite(listed))
    top = np.where(counted, rank < k, told & (listed < k))
    return top, ~counted & ~told & (rank < k)


def _methods(
    frame: pd.DataFrame, beam_width: int, widths: Sequence[int], ks: Sequence[int], seed: int
) -> list[dict[str, Any]]:
    """One dictionary a method: what it finds, how much of that is proven, what it costs."""
    users = frame["user_id"].to_numpy()
    wider = _table(frame, "width_ranks")
    nodes, seconds = _table(frame, "expanded").mean(0), _table(frame, "seconds").mean(0)
    proven = [float(frame["beam_proven"].mean()), *[None] * len(widths), float(frame["exact_proven"].mean())]
    ranks = [_floats(frame, "beam_rank"), *wider.T, _floats(frame, "exact_rank")]
    found = []
    for i, width in enumerate([beam_width, *widths, None]):
        method: dict[str, Any] = {
            "method": "exact" if width is None else f"beam {width}",
            "width": width if width is None else int(width),
        }
        for k in ks:
            for name, per_case in (("hr", hits), ("ndcg", gains)):
                mean, low, high = bootstrap_interval(per_case(ranks[i], k), users, seed=seed)
                method[f"{name}@{k}"] = {"value": mean, "low": low, "high": high}
        found.append({**method, "proven": proven[i], "nodes": float(nodes[i]), "seconds": float(seconds[i])})
    return found


def _check(frame: pd.DataFrame, widths: int) -> None:
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise DataError(f"measurements lack the column(s) {', '.join(missing)}")
    if len(frame) == 0:
        raise DataError("there are no measurements to summarize")
    for name, length in (("width_ranks", widths), ("expanded", widths + 2), ("seconds", widths + 2)):
        lengths = frame[name].map(len)
        if (lengths != length).any():
            row = int((lengths != length).to_numpy().argmax())
            raise DataError(
                f"{name} of measurement {row} has {lengths.iloc[row]} values; {widths} widths need {length}"
            )


def _floats(frame: pd.DataFrame, name: str) -> NDArray[np.float64]:
    return frame[name].to_numpy(dtype=np.float64)


def _table(frame: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """A column of lists of equal length as [U, length]."""
    return np.array([list(values) for values in frame[name]], dtype=np.float64)
