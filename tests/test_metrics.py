"""Hit ratio and NDCG by hand, by their properties and against ir-measures; the evaluation table."""

from __future__ import annotations

import json
import math

import ir_measures
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearray.errors import DataError
from bearray.metrics import evaluate, gains, hit_ratio, hits, ndcg, rank_of_target

MISS = math.inf
ranks_lists = st.lists(st.one_of(st.integers(0, 30), st.just(MISS)), min_size=1, max_size=40)


def test_by_hand() -> None:
    ranks = [0, 1, 4, 9, MISS]
    assert hit_ratio(ranks, 1) == pytest.approx(1 / 5)
    assert hit_ratio(ranks, 5) == pytest.approx(3 / 5)
    assert hit_ratio(ranks, 10) == pytest.approx(4 / 5)
    assert ndcg(ranks, 1) == pytest.approx(1 / 5)
    assert ndcg(ranks, 5) == pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(6)) / 5)
    assert ndcg(np.array(ranks), 10) == pytest.approx(
        (1 + 1 / math.log2(3) + 1 / math.log2(6) + 1 / math.log2(11)) / 5
    )
    assert hit_ratio([MISS], 10) == ndcg([MISS], 10) == 0.0
    assert isinstance(ndcg(ranks, 5), float)


@given(ranks=ranks_lists, k=st.integers(1, 35))
def test_properties(ranks: list[float], k: int) -> None:
    hr, gain = hit_ratio(ranks, k), ndcg(ranks, k)
    assert 0 <= gain <= hr <= 1
    assert hr <= hit_ratio(ranks, k + 1) and gain <= ndcg(ranks, k + 1)
    assert hr == pytest.approx(sum(r < k for r in ranks) / len(ranks))
    assert gain == pytest.approx(sum(1 / math.log2(r + 2) for r in ranks if r < k) / len(ranks))
    assert ndcg(ranks, 1) == hit_ratio(ranks, 1)
    assert hits(ranks, k).shape == gains(ranks, k).shape == (len(ranks),)


@given(ranks=ranks_lists)
def test_agrees_with_ir_measures(ranks: list[float]) -> None:
    """Lists of 31 items with strictly falling scores (equal ones would be ordered by id)."""
    qrels, run = [], []
    for case, rank in enumerate(ranks):
        qrels.append(ir_measures.Qrel(str(case), "target", 1))
        for place in range(31):
            item = "target" if place == rank else f"item{place}"
            run.append(ir_measures.ScoredDoc(str(case), item, 100.0 - place))
    measures = [ir_measures.Success @ k for k in (1, 5, 10)] + [ir_measures.nDCG @ k for k in (1, 5, 10)]
    theirs = ir_measures.calc_aggregate(measures, qrels, run)
    for k in (1, 5, 10):
        assert hit_ratio(ranks, k) == pytest.approx(theirs[ir_measures.Success @ k])
        assert ndcg(ranks, k) == pytest.approx(theirs[ir_measures.nDCG @ k])


@pytest.mark.parametrize("metric", [hit_ratio, ndcg])
def test_bad_input(metric) -> None:  # type: ignore[no-untyped-def]
    for ranks in ([], [-1], [0, math.nan], [-math.inf], [0.5], [[0, 1]]):
        with pytest.raises(ValueError, match="rank"):
            metric(ranks, 5)
    for k in (0, -3, 2.5, True):
        with pytest.raises(ValueError, match="k is"):
            metric([0], k)


def test_rank_of_target() -> None:
    predicted = np.array([[4, 2, 7], [1, 5, 5], [3, -1, -1], [0, 6, 9]])
    assert rank_of_target(predicted, [7, 5, 8, 0]).tolist() == [2, 1, MISS, 0]
    assert rank_of_target(np.zeros((2, 0), dtype=int), [1, 2]).tolist() == [MISS, MISS]
    assert rank_of_target(np.zeros((0, 3), dtype=int), []).shape == (0,)
    with pytest.raises(ValueError, match=r"\[U,B\]"):
        rank_of_target([1, 2, 3], [1])
    with pytest.raises(ValueError, match="negative"):
        rank_of_target([[1, -1]], [-1])


def predictions() -> pd.DataFrame:
    rows = 60
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "user_id": rng.integers(0, 25, rows).astype(np.int32),
            "target": np.arange(rows, dtype=np.int32) % 8,
            "rank": rng.choice([0, 1, 3, 8, MISS], rows),
        }
    )


def test_evaluate() -> None:
    frame = predictions()
    table = evaluate(frame, (1, 5, 10), train_targets={0, 1, 2})
    assert json.loads(json.dumps(table)) == table
    assert set(table) == {"all", "warm", "cold"}
    warm = frame["target"].isin([0, 1, 2])
    for name, part in (("all", frame), ("warm", frame[warm]), ("cold", frame[~warm])):
        assert table[name]["n"] == len(part)
        assert table[name]["users"] == part["user_id"].nunique()
        for k in (1, 5, 10):
            for key, metric in (("hr", hit_ratio), ("ndcg", ndcg)):
                cell = table[name][f"{key}@{k}"]
                assert cell["mean"] == pytest.approx(metric(part["rank"], k))
                assert cell["low"] <= cell["mean"] <= cell["high"] and cell["low"] < cell["high"]
    assert evaluate(frame.assign(warm=warm), (1, 5, 10)) == table
    assert evaluate(frame, (1, 5, 10), train_targets={0, 1, 2}) == table  # no hidden randomness


def test_evaluate_without_a_group() -> None:
    frame = predictions()
    assert set(evaluate(frame, (10,))) == {"all"}
    table = evaluate(frame, (10,), train_targets=range(8))
    assert table["cold"] == {"n": 0, "users": 0}
    assert table["warm"] == table["all"]


def test_evaluate_bad_input() -> None:
    frame = predictions()
    with pytest.raises(DataError, match="rank"):
        evaluate(frame.drop(columns="rank"), (10,))
    with pytest.raises(DataError, match="target"):
        evaluate(frame.drop(columns="target"), (10,), train_targets={1})
    with pytest.raises(DataError, match="no predictions"):
        evaluate(frame[:0], (10,))
    with pytest.raises(DataError, match="rank 3 is -1"):
        evaluate(frame.assign(rank=[0.0, 1, 2, -1] * 15), (10,))
