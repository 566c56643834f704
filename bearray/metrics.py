"""Hit ratio and NDCG of ranked lists with one right item each, and the evaluation table made of them.

A rank is the 0-based place of the target in its list, infinity for a miss:

    HR@K = mean of 1[rank < K]          NDCG@K = mean of 1[rank < K] / log2(rank + 2)

over all test cases, as in the published code (arXiv 2601.22925). Ranks count distinct titles: items that
share a title are one path of the trie and occur once in a list. Axes: U test cases, B list places.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bearray.errors import DataError
from bearray.stats import bootstrap_interval

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]


def hits(ranks: ArrayLike, k: int) -> Floats:
    """1 for each rank below `k`, else 0: [U] -> [U].

    Raises:
        ValueError: no ranks, a rank that is neither a whole number of at least 0 nor infinity, or k below 1.
    """
    return (_check_ranks(ranks, k) < k).astype(np.float64)


def gains(ranks: ArrayLike, k: int) -> Floats:
    """1 / log2(rank + 2) for each rank below `k`, else 0: [U] -> [U]. Raises as `hits`."""
    checked = _check_ranks(ranks, k)
    return np.where(checked < k, 1.0 / np.log2(checked + 2.0), 0.0)


def hit_ratio(ranks: ArrayLike, k: int) -> float:
    """HR@k: the share of test cases whose target is among the first `k`.

    Args:
        ranks: [U] 0-based, infinity for a miss.
        k: length of the list that counts, at least 1.

    Raises:
        ValueError: no ranks, a rank that is neither a whole number of at least 0 nor infinity, or k below 1.
    """
    return float(hits(ranks, k).mean())


def ndcg(ranks: ArrayLike, k: int) -> float:
    """NDCG@k with one relevant item a list, whose ideal gain is 1. Arguments and errors as `hit_ratio`."""
    return float(gains(ranks, k).mean())


def rank_of_target(predicted: ArrayLike, target: ArrayLike) -> Floats:
    """Where each target stands in its list.

    Args:
        predicted: [U,B] ids (of titles, so that items with one title are one), best first; negative ids are
            empty places.
        target: [U] ids.

    Returns:
        [U] 0-based rank of the first match, infinity where there is none.

    Raises:
        ValueError: shapes that do not fit, or a negative target.
    """
    lists, wanted = np.asarray(predicted), np.asarray(target)
    if lists.ndim != 2 or wanted.shape != lists.shape[:1]:
        raise ValueError(f"predicted must be [U,B] and target [U]; got {lists.shape} and {wanted.shape}")
    if wanted.size and wanted.min() < 0:
        raise ValueError(f"target {wanted.min()} is negative; negative ids mark empty places")
    matches = lists == wanted[:, None]
    found = matches.any(axis=1)
    first = matches.argmax(axis=1) if lists.shape[1] else np.zeros(len(lists), dtype=np.int64)
    return np.where(found, first.astype(np.float64), np.inf)


def evaluate(
    predictions: pd.DataFrame, ks: Sequence[int], train_targets: Collection[int] | None = None
) -> dict[str, dict[str, Any]]:
    """HR@K and NDCG@K with 95% intervals over users, for all test cases and for warm and cold targets apart.

    Args:
        predictions: a row a test case: user_id, rank, and either `warm` (bool) or `target` (item id).
        ks: the list lengths.
        train_targets: items that are a target in training (warm); None: column `warm` says it, and where that
            is missing, too, only "all" is reported.

    Returns:
        {"all": {"hr@10": {"mean", "low", "high"}, "ndcg@10": ..., "n": test cases, "users": users},
        "warm": ..., "cold": ...} in plain numbers. A group without test cases has "n" 0 and no metrics.

    Raises:
        DataError: no rows, a missing column, or a rank that cannot be.
    """
    needed = {"user_id", "rank"} | ({"target"} if train_targets is not None else set())
    missing = sorted(needed - set(predictions.columns))
    if missing:
        raise DataError(f"predictions lack the column(s) {', '.join(missing)}")
    if len(predictions) == 0:
        raise DataError("there are no predictions to evaluate")
    groups = {"all": np.ones(len(predictions), dtype=bool)}
    if train_targets is not None:
        groups["warm"] = predictions["target"].isin(list(train_targets)).to_numpy()
    elif "warm" in predictions.columns:
        groups["warm"] = predictions["warm"].to_numpy(dtype=bool)
    if "warm" in groups:
        groups["cold"] = ~groups["warm"]
    ranks = predictions["rank"].to_numpy(dtype=np.float64)
    users = predictions["user_id"].to_numpy()
    try:
        return {name: _table(ranks[rows], users[rows], ks) for name, rows in groups.items()}
    except ValueError as error:
        raise DataError(f"predictions cannot be evaluated: {error}") from error


def _table(ranks: Floats, users: NDArray[Any], ks: Sequence[int]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, per_row in (("hr", hits), ("ndcg", gains)):
        for k in ks if len(ranks) else ():
            mean, low, high = bootstrap_interval(per_row(ranks, k), users)
            table[f"{name}@{k}"] = {"mean": mean, "low": low, "high": high}
    return {**table, "n": len(ranks), "users": len(np.unique(users))}


def _check_ranks(ranks: ArrayLike, k: int) -> Floats:
    checked = np.asarray(ranks, dtype=np.float64)
    if isinstance(k, bool) or int(k) != k or k < 1:
        raise ValueError(f"k is {k!r}; it must be a whole number of at least 1")
    if checked.ndim != 1 or checked.size == 0:
        raise ValueError(f"ranks must be a list of at least one rank; got shape {checked.shape}")
    wrong = ~(np.isposinf(checked) | ((checked >= 0) & (checked == np.floor(checked))))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"rank {row} is {checked[row]}; ranks are whole numbers from 0, infinity for a miss")
    return checked
