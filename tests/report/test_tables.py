import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bearray.report import build_tables, collect
from bearray.report.rows import labels
from bearray.stats import bootstrap_interval, holm, paired_test
from tests.report.storage import write_run


def raw(folder: Path) -> dict[str, np.ndarray]:
    parts = [pq.read_table(p).to_pydict() for p in sorted(folder.glob("*.parquet"))]
    return {k: np.concatenate([p[k] for p in parts]) for k in ("user_id", "row", "rank", "warm")}


def by_hand(rank: float, metric: str) -> float:
    name, k = metric.split("@")
    if rank >= int(k):
        return 0.0
    return 1.0 if name == "hr" else float(1 / np.log2(rank + 2))


def rows_of(report: Path, name: str = "results.csv") -> list[dict[str, str]]:
    return list(csv.DictReader((report / "tables" / name).read_text().splitlines()))


RUNS = {"SFT": "sft", "MSL": "msl", "BEAR": "bear-7"}
METRICS = ("ndcg@5", "ndcg@10", "hr@5", "hr@10", "hr@1")


def test_csv_equals_numbers_worked_out_from_the_predictions(sweep: Path, report: Path) -> None:
    rows = rows_of(report)
    assert len(rows) == 2 * 3 * 3 * 5  # normalisers, populations, methods, metrics
    for row in rows:
        folder = sweep / "runs" / RUNS[row["method"]]
        data = raw(folder / ("predictions" if row["normalizer"] == "trie" else "predictions_full"))
        keep = {"all": np.full(200, True), "warm": data["warm"], "cold": ~data["warm"]}[row["population"]]
        values = np.array([by_hand(r, row["metric"]) for r in data["rank"][keep]])
        mean, low, high = bootstrap_interval(values, data["user_id"][keep])
        assert float(row["mean"]) == pytest.approx(values.mean(), abs=1e-9)
        assert (float(row["low"]), float(row["high"])) == pytest.approx((low, high), abs=1e-9)
        assert mean == pytest.approx(values.mean())
        assert int(row["n"]) == keep.sum()
        assert int(row["users"]) == len(set(data["user_id"][keep].tolist()))


@pytest.mark.parametrize("normalizer", ["trie", "full"])
def test_every_method_is_tested_against_the_best_other_and_corrected(
    sweep: Path, report: Path, normalizer: str
) -> None:
    suffix = "" if normalizer == "trie" else "_full"
    data = {m: raw(sweep / "runs" / f / f"predictions{suffix}") for m, f in RUNS.items()}
    values = {(m, k): np.array([by_hand(r, k) for r in d["rank"]]) for m, d in data.items() for k in METRICS}
    users = data["SFT"]["user_id"]
    tests = {}
    for metric in METRICS:
        best, second, third = sorted(RUNS, key=lambda m: -values[m, metric].mean())
        for pair in ((best, second), (third, best)):
            a, b = sorted(pair)  # BEAR, MSL, SFT: the order of the run folders, which the random signs see
            tests[metric, frozenset((a, b))] = paired_test(values[a, metric], values[b, metric], users)
    corrected = dict(zip(tests, holm([t.p_value for t in tests.values()]), strict=True))
    for row in rows_of(report):
        if (row["population"], row["normalizer"]) != ("all", normalizer):
            continue
        others = [m for m in RUNS if m != row["method"]]
        best = max(others, key=lambda m: values[m, row["metric"]].mean())
        assert row["versus"] == best
        key = (row["metric"], frozenset((row["method"], best)))
        assert float(row["p"]) == pytest.approx(tests[key].p_value)
        assert float(row["p_holm"]) == pytest.approx(corrected[key])
        difference = paired_test(values[row["method"], row["metric"]], values[best, row["metric"]], users)
        assert float(row["difference"]) == pytest.approx(difference.mean_difference)
        assert float(row["difference_low"]) <= float(row["difference"]) <= float(row["difference_high"])
        decided = float(row["p_holm"]) < 0.05
        expected = ("better" if float(row["difference"]) > 0 else "worse") if decided else "undecided"
        assert row["verdict"] == expected


def test_best_and_second_are_by_the_numbers_also_when_bear_loses(tmp_path: Path) -> None:
    for i, (method, hit) in enumerate([("SFT", 0.5), ("MSL", 0.3), ("BEAR", 0.1)]):
        write_run(tmp_path / method, method=method, hit=hit, seed=i)
    part = build_tables(collect(tmp_path).runs)[0].part("all")
    assert part is not None
    assert [r.label for r in part.rows] == ["SFT", "MSL", "BEAR"]
    assert [r.cells["hr@10"].place for r in part.rows] == [1, 2, 0]
    bear = part.rows[2].cells["hr@10"].test
    assert bear is not None and bear.versus == "SFT" and bear.verdict == "worse"


def test_table2_has_the_data_sets_side_by_side(tmp_path: Path) -> None:
    from bearray.report.formats import table2_csv

    for dataset in ("toy", "book"):
        for i, method in enumerate(("SFT", "BEAR")):
            name = f"{dataset}-{method}"
            write_run(tmp_path / name, method=method, dataset=dataset, seed=i, full=False, n=50)
    tables = build_tables(collect(tmp_path).runs)
    lines = list(csv.DictReader(table2_csv(tables).splitlines()))
    assert [(x["population"], x["method"]) for x in lines][:2] == [("all", "SFT"), ("all", "BEAR")]
    rank = raw(tmp_path / "toy-BEAR" / "predictions")["rank"]
    bear = next(x for x in lines if (x["population"], x["method"]) == ("all", "BEAR"))
    assert float(bear["toy hr@10"]) == pytest.approx((rank < 10).mean())
    assert bear["book ndcg@5"] != ""


def test_runs_on_other_test_cases_are_not_paired_and_the_note_says_why(tmp_path: Path) -> None:
    write_run(tmp_path / "a", method="SFT", n=200, changes={"data.test_windows": 200})
    write_run(tmp_path / "b", method="MSL", n=150, seed=1, hit=0.9, changes={"data.test_windows": 150})
    table = build_tables(collect(tmp_path).runs)[0]
    part = table.part("all")
    assert part is not None
    for row in part.rows:
        assert all(c.test is None and c.place == 0 for c in row.cells.values())
    assert [r.n for r in part.rows] == [200, 150]
    note = next(n for n in table.notes if n.startswith("All test cases"))
    assert "SFT has 200 cases, MSL has 150, and 150 are in both" in note
    assert "data.test_windows: 200 -> 150" in note


def test_rows_on_the_same_cases_are_still_compared_beside_one_that_is_not(tmp_path: Path) -> None:
    write_run(tmp_path / "a", method="SFT", seed=1)
    write_run(tmp_path / "b", method="MSL", seed=2)
    write_run(tmp_path / "c", method="BEAR", seed=3, hit=0.9, data_hash="e" * 16)
    table = build_tables(collect(tmp_path).runs)[0]
    part = table.part("all")
    assert part is not None
    tests = {r.label: r.cells["hr@10"].test for r in part.rows}
    assert tests["BEAR"] is None
    assert tests["SFT"] is not None and tests["SFT"].versus == "MSL"
    assert any("data_hash" in n and "SFT, MSL | BEAR" in n for n in table.notes)


def test_data_sets_and_base_models_are_never_in_one_table(tmp_path: Path) -> None:
    write_run(tmp_path / "a", method="SFT", dataset="toy", n=20)
    write_run(tmp_path / "b", method="SFT", dataset="book", n=20)
    write_run(tmp_path / "c", method="SFT", dataset="book", base_model="local:small", n=20)
    found = [(t.dataset, t.base_model, t.normalize) for t in build_tables(collect(tmp_path).runs)]
    bases = [("book", "local:small"), ("book", "local:tiny"), ("toy", "local:tiny")]
    assert found == [(d, b, n) for d, b in bases for n in ("trie", "full")]


def test_other_settings_that_differ_are_noted(tmp_path: Path) -> None:
    write_run(tmp_path / "a", method="SFT", n=20, changes={"train.lr": 1e-4})
    write_run(tmp_path / "b", method="BEAR", n=20, changes={"train.lr": 1e-3, "train.max_failures": 0})
    notes = build_tables(collect(tmp_path).runs)[0].notes
    assert notes == ("The rows also differ in train.lr: SFT 0.0001, BEAR 0.001.",)


def test_labels_tell_runs_of_one_method_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "a", method="BEAR", n=20, changes={"objective.form": "hinge"})
    write_run(tmp_path / "b", method="BEAR", n=20)
    write_run(tmp_path / "c", method="BEAR", n=20)
    write_run(tmp_path / "d", method="SFT", n=20)
    found = labels(collect(tmp_path).runs)
    assert found == {
        "a": "BEAR (form hinge)",
        "b": "BEAR (form equation) [b]",
        "c": "BEAR (form equation) [c]",
        "d": "SFT",
    }


def test_chosen_trial_is_in_the_table_and_other_trials_are_not(tmp_path: Path) -> None:
    write_run(tmp_path / "a", method="BEAR", role="trial", n=20, chosen=True)
    write_run(tmp_path / "b", method="BEAR", role="trial", n=20, hit=None, changes={"objective.lam": 2.0})
    part = build_tables(collect(tmp_path).runs)[0].parts[0]
    assert [(r.label, r.run.id) for r in part.rows] == [("BEAR", "a")]
    assert part.rows[0].cells["hr@10"].test is None and part.rows[0].cells["hr@10"].place == 0


def test_rows_have_the_names_of_their_methods(tmp_path: Path) -> None:
    for i, method in enumerate(("SFT", "D2LR", "SDPO", "HINGE")):
        write_run(tmp_path / method, method=method, seed=i)
    runs = collect(tmp_path).runs
    assert sorted(labels(runs).values()) == ["D2LR-IPS", "HINGE", "S-DPO", "SFT"]
    assert sorted(run.method for run in runs) == ["D2LR", "HINGE", "SDPO", "SFT"]  # as stored
