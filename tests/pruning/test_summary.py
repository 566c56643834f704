"""`summarize` against frames small enough to count by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from bearray.errors import DataError
from bearray.pruning import COLUMNS, summarize

MISS = math.inf


def row(
    number, user, *, rank, beam_rank, pool_rank, cut=0, violations=0, at_cut=False, gap=math.nan,
    proven=True, wide=MISS, exact=MISS, exact_proven=True, beam_proven=False, nodes=(10, 20, 7),
):  # fmt: skip
    """One measurement with one other width."""
    return {
        "row": number, "user_id": user, "target": number, "warm": True, "target_score": -3.0, "steps": 5,
        "branching": 3, "violations": violations, "first_violation": min(violations, 1), "rank": float(rank),
        "rank_proven": proven, "beam_rank": float(beam_rank), "beam_proven": beam_proven, "cut_step": cut,
        "cut_gap": gap, "cut_violates": at_cut, "pool_rank": float(pool_rank), "width_ranks": [float(wide)],
        "exact_rank": float(exact), "exact_proven": exact_proven, "expanded": list(nodes),
        "seconds": [0.5, 1.0, 2.0],
    }  # fmt: skip


FRAME = pd.DataFrame(
    [
        row(0, 1, rank=0, beam_rank=0, pool_rank=0, wide=0, exact=0, beam_proven=True),
        row(1, 1, rank=1, beam_rank=MISS, pool_rank=0, cut=2, violations=2, at_cut=True, gap=0.5, wide=2,
            exact=1),
        row(2, 2, rank=2, beam_rank=MISS, pool_rank=2, cut=1, violations=1, at_cut=False, gap=1.5, exact=2),
        row(3, 3, rank=3, beam_rank=MISS, pool_rank=3, cut=2, gap=2.5, exact=3, nodes=(10, 20, 47)),
        row(4, 3, rank=9, beam_rank=MISS, pool_rank=3, cut=4, violations=3, at_cut=True, gap=9.0),
        row(5, 4, rank=4, beam_rank=3, pool_rank=3, wide=4),  # kept, though it is not in the true top 4
        # The count ended early. The proven list says that this one is fourth, so it counts:
        row(6, 5, rank=1, proven=False, beam_rank=MISS, pool_rank=1, cut=2, violations=1, gap=0.1, exact=3),
        # that this one is not among four:
        row(7, 6, rank=1, proven=False, beam_rank=MISS, pool_rank=4, cut=1),
        # and this list is not proven: it cannot be known, but for K = 1, where the count has reached 1.
        row(8, 6, rank=1, proven=False, beam_rank=MISS, pool_rank=4, cut=1, exact=2, exact_proven=False),
    ]
)  # fmt: skip


def test_by_hand():
    found = summarize(FRAME, beam_width=4, widths=(8,), ks=(1, 2, 4), seed=3)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["n"], found["users"], found["beam_width"]) == (9, 6, 4)
    assert (found["widths"], found["ks"]) == ([8], [1, 2, 4])
    assert found["rank_proven"] == 6 / 9
    exact = {k: found["pruning"][k]["exact"] for k in ("1", "2", "4")}
    assert [(exact[k]["pruned"], exact[k]["of"], exact[k]["unknown"]) for k in exact] == [
        (0, 1, 0),  # rank 0 is kept; row 8 has a better title
        (1, 2, 1),
        (4, 5, 1),
    ]
    assert exact["4"]["rate"] == 4 / 5 and exact["1"]["rate"] == 0
    pool = {k: found["pruning"][k]["pool"] for k in ("1", "2", "4")}
    assert [(pool[k]["pruned"], pool[k]["of"]) for k in pool] == [(1, 2), (2, 3), (5, 7)]
    violations = found["violations"]
    assert violations["pruned"] == 4
    assert (violations["any"]["count"], violations["any"]["rate"]) == (3, 3 / 4)
    assert (violations["at_cut"]["count"], violations["at_cut"]["rate"]) == (1, 1 / 4)
    assert found["cut_steps"] == {"1": 1, "2": 3}
    assert found["cut_gap"] == {"median": 1.0, "q25": pytest.approx(0.4), "q75": pytest.approx(1.75)}

    beam, wider, best = found["search"]
    assert [(m["method"], m["width"]) for m in (beam, wider, best)] == [
        ("beam 4", 4), ("beam 8", 8), ("exact", None),
    ]  # fmt: skip
    assert beam["hr@1"]["value"] == 1 / 9 and beam["hr@4"]["value"] == 2 / 9
    assert beam["ndcg@4"]["value"] == pytest.approx((1 + 1 / math.log2(5)) / 9)
    assert wider["hr@4"]["value"] == 2 / 9 and wider["hr@2"]["value"] == 1 / 9
    assert best["hr@4"]["value"] == 6 / 9
    assert (beam["proven"], wider["proven"], best["proven"]) == (1 / 9, None, 8 / 9)
    assert (beam["nodes"], wider["nodes"], best["nodes"]) == (10, 20, pytest.approx((8 * 7 + 47) / 9))
    assert [m["seconds"] for m in (beam, wider, best)] == [0.5, 1.0, 2.0]


def test_intervals_draw_users_with_all_that_counts_of_them():
    """Against a bootstrap in plain loops: sums of the users drawn, then their ratio."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        [
            row(i, int(user), rank=int(r), beam_rank=MISS if gone else r, pool_rank=r, cut=int(gone))
            for i, (user, r, gone) in enumerate(
                zip(rng.integers(0, 40, 200), rng.integers(0, 8, 200), rng.random(200) < 0.4, strict=True)
            )
        ]
    )
    found = summarize(frame, beam_width=10, widths=(8,), ks=(5,))["pruning"]["5"]["exact"]
    top = frame[frame["rank"] < 5]
    by_user = [np.isinf(rows["beam_rank"]).to_numpy() for _, rows in top.groupby("user_id")]
    rates = []
    for _ in range(4000):
        drawn = [by_user[i] for i in rng.integers(0, len(by_user), len(by_user))]
        rates.append(sum(map(sum, drawn)) / sum(map(len, drawn)))
    assert found["rate"] == np.isinf(top["beam_rank"]).mean()
    assert (found["low"], found["high"]) == pytest.approx(np.quantile(rates, [0.025, 0.975]), abs=0.02)
    assert found["high"] - found["low"] > 0.1


def test_shares_of_nothing_are_none():
    frame = pd.DataFrame([row(0, 1, rank=50, beam_rank=MISS, pool_rank=10)])
    found = summarize(frame, beam_width=10, widths=(8,))
    nothing = {"rate": None, "low": None, "high": None, "pruned": 0, "of": 0}
    assert found["pruning"]["5"] == {"exact": {**nothing, "unknown": 0}, "pool": nothing}
    assert found["violations"] == {
        "pruned": 0,
        "any": {"rate": None, "low": None, "high": None, "count": 0},
        "at_cut": {"rate": None, "low": None, "high": None, "count": 0},
    }
    assert found["cut_steps"] == {}
    assert found["cut_gap"] == {"median": None, "q25": None, "q75": None}
    assert found["search"][0]["hr@10"] == {"value": 0, "low": 0, "high": 0}
    json.dumps(found, allow_nan=False)


def test_lists_longer_than_the_beam():
    """K above B: a proven list of B tells of the titles in it, and nothing of the others."""
    frame = pd.DataFrame(
        [
            row(0, 1, rank=1, proven=False, beam_rank=MISS, pool_rank=2, exact=1),
            row(1, 2, rank=1, proven=False, beam_rank=MISS, pool_rank=2),
            row(2, 3, rank=3, beam_rank=MISS, pool_rank=2),
        ]
    )
    exact = summarize(frame, beam_width=2, widths=(8,), ks=(5,))["pruning"]["5"]["exact"]
    assert (exact["pruned"], exact["of"], exact["unknown"]) == (2, 2, 1)


def test_survives_parquet(tmp_path):
    FRAME.to_parquet(tmp_path / "part.parquet")
    again = pd.read_parquet(tmp_path / "part.parquet")
    settings = {"beam_width": 4, "widths": (8,), "ks": (1, 4)}
    assert summarize(again, **settings) == summarize(FRAME, **settings)


def test_bad_frames_are_named():
    with pytest.raises(DataError, match="there are no measurements"):
        summarize(pd.DataFrame(columns=list(COLUMNS)), beam_width=4)
    with pytest.raises(DataError, match=r"lack the column\(s\) rank, cut_step$"):
        summarize(FRAME.drop(columns=["rank", "cut_step"]), beam_width=4)
    with pytest.raises(DataError, match="width_ranks of measurement 0 has 1 values; 3 widths need 3"):
        summarize(FRAME, beam_width=4)
