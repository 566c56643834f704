from pathlib import Path

import numpy as np
import pandas as pd

from bearray.report import build_tables, collect
from bearray.report.cost import build_costs
from bearray.report.headline import Headline, build_headlines, p_words, relative, seconds
from bearray.report.search import build_searches
from tests.report.storage import write_predictions, write_run


def headline(storage: Path) -> Headline:
    runs = collect(storage).runs
    costs = build_costs(runs, build_searches(runs))
    return build_headlines(build_tables(runs), costs)[0]


def test_a_clear_winner_is_named_with_size_certainty_and_cost(sweep: Path) -> None:
    found = headline(sweep)
    assert found.shown
    assert found.verdict.startswith("BEAR recommends better than MSL here, the next best: +")
    text = " ".join(found.details)
    assert "after Holm's correction for 10 comparisons" in text
    assert "Training BEAR took 200 s (1.67 times that of MSL, 1.82 times that of SFT)" in text
    assert "chosen by validation among 12 trials" in text and "MSL, SFT had one setting" in text
    assert "stand-in" in text


def test_a_loss_of_bear_is_said_as_plainly(tmp_path: Path) -> None:
    for i, (method, hit) in enumerate([("SFT", 0.7), ("BEAR", 0.1)]):
        write_run(tmp_path / method, method=method, hit=hit, seed=i)
    found = headline(tmp_path)
    assert found.shown and found.verdict.startswith("SFT recommends better than BEAR here")


def test_a_difference_that_can_be_chance_has_no_winner(tmp_path: Path) -> None:
    for i, method in enumerate(("SFT", "MSL", "BEAR")):
        write_run(tmp_path / method, method=method, hit=0.2, seed=i)
    found = headline(tmp_path)
    assert not found.shown and found.verdict.startswith("No winner is shown.")


def test_equal_methods_share_the_first_place(tmp_path: Path) -> None:
    for method in ("SFT", "BEAR"):
        write_run(tmp_path / method, method=method, hit=0.2, seed=0)
    found = headline(tmp_path)
    assert not found.shown and "share the highest NDCG@10" in found.verdict
    assert any("alike" in d for d in found.details)


def test_no_hits_one_method_and_other_cases_are_said(tmp_path: Path) -> None:
    write_run(tmp_path / "none" / "a", method="SFT", hit=0.0)
    assert "No method found a single target" in headline(tmp_path / "none").verdict
    write_run(tmp_path / "one" / "a", method="SFT")
    assert headline(tmp_path / "one").verdict.startswith("Only SFT was evaluated")
    write_run(tmp_path / "two" / "a", method="SFT", n=100)
    write_run(tmp_path / "two" / "b", method="BEAR", n=120)
    assert "was not tested on the same cases" in headline(tmp_path / "two").verdict


def test_words() -> None:
    assert relative(0.11, 0.1) == "+10.0%"
    assert relative(0.09, 0.1) == "−10.0%"
    assert relative(0.1, 0.0) == "from zero"
    assert p_words(0.0004) == "p < 0.001" and p_words(0.0312) == "p = 0.031"
    assert seconds(0.5) == "0.50 s" and seconds(5320) == "5,320 s (1.5 h)"


def test_lists_that_are_the_same_for_everybody_are_a_caution(tmp_path: Path) -> None:
    found = {}
    for name, first in (("constant", np.full(100, 7)), ("personal", np.arange(100))):
        folder = tmp_path / name / "run"
        write_run(folder, method="SFT", n=100, hit=0.2)
        predictions = next(p for p in sorted(folder.iterdir()) if p.name.startswith("predictions"))
        shards = sorted(predictions.glob("*.parquet"))
        frame = pd.concat([pd.read_parquet(s) for s in shards], ignore_index=True)
        lists = np.stack([first, *(first + k for k in range(1, 10))], axis=1)
        for shard in shards:
            shard.unlink()
        write_predictions(predictions, frame["rank"].to_numpy(), frame["user_id"].to_numpy(), lists=lists)
        found[name] = " ".join(headline(tmp_path / name).details)
    assert "Caution: SFT puts the same title first for 100% of the test cases" in found["constant"]
    assert "hold 10 titles" in found["constant"]
    assert "Caution" not in found["personal"]


def test_one_caution_names_all_methods_that_it_is_about(tmp_path: Path) -> None:
    lists = np.tile(np.arange(10), (40, 1))
    for i, method in enumerate(("SFT", "MSL", "BEAR")):
        folder = tmp_path / method
        write_run(folder, method=method, n=40, users_count=40, hit=0.3, seed=i, full=False)
        (shard,) = (folder / "predictions").glob("*.parquet")
        frame = pd.read_parquet(shard)
        own = lists if method != "MSL" else lists + np.arange(40)[:, None]
        write_predictions(
            folder / "predictions", frame["rank"].to_numpy(), frame["user_id"].to_numpy(), lists=own
        )
    cautions = [line for line in headline(tmp_path).details if line.startswith("Caution")]
    assert len(cautions) == 1
    assert "2 methods each put one title first" in cautions[0]
    assert "SFT 100%, 10 titles" in cautions[0] and "BEAR 100%, 10 titles" in cautions[0]
    assert "MSL" not in cautions[0]
