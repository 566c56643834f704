"""Tables in docs/ that people wrote from committed results say what those results say."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
STUDIES = {"office": "## The study: all objectives", "book": "### The same on Book"}


def csv_rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def table_after(page: Path, heading: str, first: str = "| Method |") -> list[dict[str, str]]:
    """The rows of the first table below a heading, by column."""
    text = page.read_text(encoding="utf-8")
    lines = text[text.index(heading) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(first))
    cells = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        cells.append([cell.strip().replace("\\_", "_") for cell in line.strip("|").split("|")])
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def number(value: str, spread: str = "") -> str:
    """As the pages write a mean, with the standard deviation between seeds where there are several."""
    return f"{float(value):.4f}" + (f" ±{float(spread):.4f}" if spread else "")


@pytest.mark.parametrize("data", sorted(STUDIES))
def test_the_study(data: str) -> None:
    rows = table_after(DOCS / "results.md", STUDIES[data])
    measured = {row["method"]: row for row in csv_rows(DOCS / f"study-{data}" / "overview.csv")}
    assert {row["Method"] for row in rows} == set(measured)
    for row in rows:
        of = measured[row["Method"]]
        for shown, name in (("trie", "trie"), ("full", "full"), ("exact", "exact")):
            score = number(of[f"{name} ndcg@10"], of[f"{name} ndcg@10 seed_sd"])
            assert row[f"NDCG@10 {shown}"].replace("†", "") == score, row["Method"]
        assert row["HR@10 trie"] == number(of["trie hr@10"], of["trie hr@10 seed_sd"])
        assert row["train (s)"].split()[0] == f"{float(of['train_seconds']):.1f}"


@pytest.mark.parametrize("data", sorted(STUDIES))
def test_what_beam_search_pruned_in_the_study(data: str) -> None:
    measured = {row["method"]: row for row in csv_rows(DOCS / f"study-{data}" / "overview.csv")}
    rows = table_after(DOCS / "results.md", STUDIES[data])
    assert {row["Method"]: row["PR@10"] for row in rows} == {
        method: f"{of['pruned']} of {of['deserving']}" for method, of in measured.items()
    }
    pruned, deserving = (sum(int(of[n]) for of in measured.values()) for n in ("pruned", "deserving"))
    page = (DOCS / "results.md").read_text(encoding="utf-8")
    assert f"{deserving} times in 36 runs" in page and f"and {pruned} times beam search lost it" in page


COSTS = {
    "MSL; BEAR; hinge; BEAR as released": "msl bear bear:form=hinge bear:form=released",
    "BEAR over the whole vocabulary": "bear:vocabulary=full",
    "D2LR-IPS; IGD": "d2lr igd",
    "SPRec, SFT and DPO rounds in their proportion": "sprec",
    "CFT": "cft",
    "(3.1); mixed with BEAR": "beam_simulation beam_simulation:mix=0.5",
    "(3.1) without LoRA dropout, times SFT without it": "beam_simulation:lora_dropout=0",
    "Flower": "flower",
    "DPO; RosePO": "dpo rosepo",
    "S-DPO; with BEAR; DMPO (three negatives each)": "sdpo sdpo_bear dmpo",
    "(3.1) over the whole vocabulary": "beam_simulation:vocabulary=full",
    "best-of-N; GRPO (eight rollouts)": "best_of_n grpo",
}
"""Rows of the table of costs, and whose ratios to SFT stand in them."""


def test_what_the_objectives_cost() -> None:
    file = DOCS.parent / "benchmarks" / "results" / "efficiency-cpu-office.csv"
    ratio = {r["name"]: r for r in csv_rows(file) if r["part"] == "training" and r["measure"] == "ratio"}
    rows = table_after(DOCS / "results.md", "### What they cost", "| | times SFT's step |")
    assert {row[""]: row["times SFT's step"] for row in rows} == {
        name: "; ".join(
            f"{float(of['value']):.2f} [{float(of['low']):.2f}, {float(of['high']):.2f}]"
            for of in (ratio[label] for label in labels.split())
        )
        for name, labels in COSTS.items()
    }


def table_2() -> dict[tuple[str, str, str], dict[str, str]]:
    """The cells of Table 2 on Office that were tested, by method, decoding and metric."""
    return {
        (r["method"], r["decoding"], r["metric"]): r
        for r in csv_rows(DOCS / "paper-office" / "tables" / "table2.csv")
        if r["data_set"] == "office" and r["status"] == "tested"
    }


def with_interval(cell: dict[str, str]) -> str:
    mean, low, high = (number(cell[name]) for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def test_what_the_readme_shows_of_it() -> None:
    rows = table_after(DOCS.parent / "README.md", "# bearray", "| | NDCG@10")
    cells = table_2()
    assert len(rows) >= 4
    for row in rows:
        method = row[""].partition(",")[0]
        of = {decoding: cells[method, decoding, "ndcg@10"] for decoding in ("trie", "full")}
        assert row["NDCG@10, `trie`"] == with_interval(of["trie"]), method
        if row["NDCG@10, `full`"]:
            assert row["NDCG@10, `full`"] == with_interval(of["full"]), method
        assert row["the paper's"] == number(of["trie"]["paper"]), method


def test_table_2_on_office() -> None:
    rows = table_after(DOCS / "paper-office.md", "## Table 2")
    cells = table_2()
    assert {row["Method"] for row in rows} == {method for method, _, _ in cells}
    for row in rows:
        for column, decoding, metric in (
            ("NDCG@10, `trie`", "trie", "ndcg@10"),
            ("HR@10, `trie`", "trie", "hr@10"),
            ("NDCG@10, `full`", "full", "ndcg@10"),
        ):
            assert row[column] == with_interval(cells[row["Method"], decoding, metric]), (
                row["Method"],
                column,
            )
        paper = cells[row["Method"], "trie", "ndcg@10"]["paper"]
        assert row["the paper's NDCG@10"] == (number(paper) if paper else "")
