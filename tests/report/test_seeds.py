"""Runs with several seeds are one row; methods at a glance by every way of decoding."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bearray.report import build_tables, collect, write_report
from bearray.report.cost import build_costs
from bearray.report.headline import build_headlines
from bearray.report.overview import build_overview, overview_cells
from bearray.report.rows import labels, replicates
from bearray.stats import bootstrap_interval, paired_test
from tests.report.storage import write_run
from tests.report.test_report import Page
from tests.report.test_tables import by_hand, raw

N = 60
SFT, DPO, BEAR = "sft-0123456789", "dpo-0123456789", "bear-0123456789"


def write(storage: Path, name: str, seed: int, hit: float, **more: Any) -> None:
    method, _, _ = name.partition("-")
    start = {"train.init_adapter": f"run:sft-{seed}"} if method == "dpo" else {}
    changes = {"train.seed": seed, **start, **more.pop("changes", {})}
    kind = {"n": N, "users_count": 30, "epochs": 1, "exact": True, **more}
    write_run(storage / f"{name}-{seed}", method=method.upper(), seed=seed, hit=hit, changes=changes, **kind)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SFT and DPO with two seeds, BEAR with a chosen trial, another trial and a second seed. Read only."""
    folder = tmp_path_factory.mktemp("seeds")
    for seed, hit in ((3, 0.2), (4, 0.4)):
        write(folder, "sft", seed, hit)
        write(folder, "dpo", seed, hit + 0.3, changes={"train.lr": 2e-5})
    searched = {"objective.lam": 0.5}
    write(folder, "bear", 3, 0.6, role="trial", chosen=True, changes=searched)
    write(folder, "bear", 4, 0.5, changes=searched)
    write_run(
        folder / "bear-other", method="BEAR", role="trial", hit=None, n=N, epochs=1,
        changes={"train.seed": 3, "objective.lam": 2.0},
    )  # fmt: skip
    return folder


def test_a_row_is_the_mean_of_its_seeds_case_by_case(storage: Path) -> None:
    tables = build_tables(collect(storage).runs)
    assert [t.normalize for t in tables] == ["trie", "full", "exact"]
    suffix = {"trie": "", "full": "_full", "exact": "_exact"}
    for table in tables:
        part = table.part("all")
        assert part is not None
        assert [(r.label, [run.seed for run in r.runs]) for r in part.rows] == [
            ("SFT", [3, 4]),
            ("DPO", [3, 4]),
            ("BEAR", [3, 4]),
        ]
        data = {
            (r.label, s): raw(storage / f"{r.label.lower()}-{s}" / f"predictions{suffix[table.normalize]}")
            for r in part.rows
            for s in (3, 4)
        }
        for metric in ("ndcg@10", "hr@5"):
            seeds = {key: np.array([by_hand(x, metric) for x in d["rank"]]) for key, d in data.items()}
            users = data["SFT", 3]["user_id"]
            both = {r.label: (seeds[r.label, 3] + seeds[r.label, 4]) / 2 for r in part.rows}
            for row in part.rows:
                cell = row.cells[metric]
                wanted = bootstrap_interval(both[row.label], users)
                assert (cell.mean, cell.low, cell.high) == pytest.approx(wanted)
                assert row.n == N and row.users == 30
                a, b = seeds[row.label, 3].mean(), seeds[row.label, 4].mean()
                assert cell.seed_sd == pytest.approx(abs(a - b) / 2**0.5)
                assert cell.test is not None
                test = paired_test(both[row.label], both[cell.test.versus], users)
                assert cell.test.difference == pytest.approx(test.mean_difference)
                assert cell.test.p == pytest.approx(test.p_value, abs=0.01)  # signs are drawn in other order


def test_what_is_one_row_and_what_is_not(storage: Path, tmp_path: Path) -> None:
    runs = [r for r in collect(storage).runs if r.predictions]
    assert [[r.id for r in group] for group in replicates(runs)] == [
        ["bear-3", "bear-4"],
        ["dpo-3", "dpo-4"],
        ["sft-3", "sft-4"],
    ]
    write(tmp_path, "sft", 1, 0.3)
    write(tmp_path, "sft", 2, 0.3, changes={"evaluation.actors": 2, "train.max_failures": 0})  # the same
    write(tmp_path, "sft", 3, 0.3, changes={"train.lr": 0.5})  # another rate
    write(tmp_path, "sft", 4, 0.3, data_hash="e" * 16)  # other data
    write(tmp_path, "sft", 5, 0.3, n=50)  # other cases
    write(tmp_path / "again", "sft", 1, 0.3)  # the same seed twice is no second seed
    groups = replicates(collect(tmp_path).runs)
    assert sorted([r.id for r in g] for g in groups) == [
        ["again/sft-1", "sft-2"], ["sft-1"], ["sft-3"], ["sft-4"], ["sft-5"],
    ]  # fmt: skip


def test_runs_that_are_not_put_together_are_called_by_their_seed(storage: Path) -> None:
    runs = [r for r in collect(storage).runs if r.predictions and r.method != "BEAR"]
    assert labels(runs) == {
        "sft-3": "SFT (seed 3)", "sft-4": "SFT (seed 4)",
        "dpo-3": "DPO (seed 3)", "dpo-4": "DPO (seed 4)",
    }  # fmt: skip


def test_notes_say_what_rows_started_from_and_other_seeds(storage: Path, tmp_path: Path) -> None:
    table = build_tables(collect(storage).runs)[0]
    assert table.notes == (
        "The rows also differ in train.lr: SFT 0.0001, DPO 2e-05, BEAR 0.0001.",
        "Trained from the SFT run's adapter and not from a new one: DPO. "
        "What that took is not in their times.",
    )
    write(tmp_path, "sft", 1, 0.2)
    write(tmp_path, "sft", 2, 0.2)
    write(tmp_path, "bear", 1, 0.2, proven=0.75)
    one, _, exact = build_tables(collect(tmp_path).runs)
    assert one.notes == ("The rows have other seeds: SFT 1, 2; BEAR 1.",)
    assert "proven: BEAR 75.0%." in exact.notes[-1]


def test_cost_is_the_mean_over_seeds(storage: Path) -> None:
    costs = build_costs(collect(storage).runs, [])["demo", "local:tiny"]
    assert [(c.label, c.started_from, len(c.runs)) for c in costs] == [
        ("SFT", None, 2), ("DPO", "SFT", 2), ("BEAR", None, 2),
    ]  # fmt: skip
    assert costs[0].seconds["train"] == (130 + 140) / 2
    assert costs[0].decoding == pytest.approx({"trie": 1000 / 10, "full": 1000 / 11, "exact": 1000 / 12})


def test_the_headline_speaks_of_seeds(storage: Path) -> None:
    runs = collect(storage).runs
    details = " ".join(build_headlines(build_tables(runs), build_costs(runs, []))[0].details)
    assert "Values are means over 2 seeds; from seed to seed" in details
    assert "Ranked by exact search" in details


def test_all_methods_at_a_glance(storage: Path) -> None:
    runs = collect(storage).runs
    tables = build_tables(runs)
    overview = build_overview(tables, build_costs(runs, [])["demo", "local:tiny"], [])
    assert overview is not None
    header, lines = overview_cells(overview)
    decoded = [f"{m} {d}" for d in ("trie", "full", "exact") for m in ("NDCG@10", "HR@10")]
    assert header == ["Method", "seeds", *decoded, "PR@10", "train (s)", "ms trie", "ms full", "ms exact"]
    assert [line[0] for line in lines] == ["SFT", "DPO", "BEAR"]
    for table, place in zip(tables, (2, 4, 6), strict=True):
        part = table.part("all")
        assert part is not None
        for row, line in zip(part.rows, lines, strict=True):
            assert line[place].startswith(f"{row.cells['ndcg@10'].mean:.4f}")
            assert line[place].endswith(f"±{row.cells['ndcg@10'].seed_sd:.4f}")
    assert lines[1][9] == "135.0 after SFT" and lines[1][10:] == ["100.0", "90.9", "83.3"]


def test_the_report_shows_seeds_and_exact_search(storage: Path, tmp_path: Path) -> None:
    out = write_report(storage, tmp_path / "out").parent
    page = Page((out / "index.html").read_text())
    for text in ("seeds", "±0.", "Ranked by exact search", "DPO (after SFT)", "Means over seeds"):
        assert text in page.text, text
    rows = list(csv.DictReader((out / "tables" / "results.csv").read_text().splitlines()))
    assert {r["normalizer"] for r in rows} == {"trie", "full", "exact"}
    assert {r["seeds"] for r in rows} == {"2"} and all(float(r["seed_sd"]) >= 0 for r in rows)
    glance = list(csv.DictReader((out / "tables" / "overview.csv").read_text().splitlines()))
    assert [(r["method"], r["seeds"], r["started_from"]) for r in glance] == [
        ("SFT", "2", ""), ("DPO", "2", "SFT"), ("BEAR", "2", ""),
    ]  # fmt: skip
    assert "## All methods: demo, local:tiny" in (out / "report.md").read_text()
    for tex in ("overview", "exact"):
        text = (out / "tables" / f"1-demo-local-tiny-{tex}.tex").read_text()
        assert r"$\pm$" in text and "±" not in text
