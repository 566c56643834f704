"""The report's section on what beam search loses, from summaries that a test can work out itself."""

from __future__ import annotations

import csv
import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from bearray.errors import DataError
from bearray.pruning import summarize
from bearray.report import collect, write_report
from bearray.report.figures import save
from bearray.report.pruning import build_pruning, parse_row
from bearray.report.pruning_figures import pruning_figures
from bearray.report.pruning_text import causes, rate_cells, search_cells
from tests.pruning.test_summary import FRAME
from tests.report.storage import write_run, write_sweep
from tests.report.test_report import HOSTILE, Page

WIDTHS = (10, 20, 50, None)


def share(count: int, of: int) -> dict[str, Any]:
    if not of:
        return {"rate": None, "low": None, "high": None}
    return {"rate": count / of, "low": max(0.0, count / of - 0.1), "high": min(1.0, count / of + 0.1)}


def summary(pruned: int, *, of: int = 40, quality: float = 0.1, unknown: int = 0) -> dict[str, Any]:
    """`bearray.pruning.summarize`'s layout; `pruned` of `of` targets of the true top 10, half of it at 5."""
    pruning = {
        str(k): {
            "exact": {**share(n, of), "pruned": n, "of": of, "unknown": unknown},
            "pool": {**share(n + 2, of + 4), "pruned": n + 2, "of": of + 4},
        }
        for k, n in ((5, pruned // 2), (10, pruned))
    }
    search = [
        {
            "method": "exact" if width is None else f"beam {width}",
            "width": width,
            **{
                f"{name}@{k}": {"value": value, "low": value / 2, "high": value * 2}
                for name in ("hr", "ndcg")
                for k in (5, 10)
                for value in (quality * (1 + place / 10) * (1 if name == "ndcg" else 2) * k / 10,)
            },
            "proven": None if width == 20 else 0.25 * (place + 1),
            "nodes": 30.0 * 2**place,
            "seconds": 0.004 * 2**place,
        }
        for place, width in enumerate(WIDTHS)
    ]
    return {
        "n": 100,
        "users": 60,
        "beam_width": 10,
        "widths": [20, 50],
        "ks": [5, 10],
        "rank_proven": 0.97,
        "pruning": pruning,
        "violations": {
            "pruned": pruned,
            "any": {**share(max(pruned - 2, 0), pruned), "count": max(pruned - 2, 0)},
            "at_cut": {**share(pruned // 2, pruned), "count": pruned // 2},
        },
        "cut_steps": {"1": pruned - 3, "3": 2, "15": 1} if pruned > 3 else {},
        "cut_gap": dict(
            zip(("median", "q25", "q75"), (0.75, 0.2, 1.5) if pruned else (None,) * 3, strict=True)
        ),
        "search": search,
    }


def write_pruning(run: Path, content: dict[str, Any], folder: str = "pruning", **settings: Any) -> None:
    about = {"split": "test", "rows": 100, "of": 100, "normalize": "trie", "beam_width": 10}
    (run / folder).mkdir()
    (run / folder / "summary.json").write_text(
        json.dumps({"settings": {**about, "node_budget": None, **settings}, "summary": content})
    )


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep of the other tests with an analysis of SFT, MSL and the chosen BEAR; SFT's also by full."""
    storage = tmp_path_factory.mktemp("storage") / "demo"
    storage.mkdir()
    write_sweep(storage)
    write_pruning(storage / "runs" / "sft", summary(20, quality=0.1))
    write_pruning(storage / "runs" / "msl", summary(10, quality=0.12, unknown=3), of=250, node_budget=500)
    write_pruning(storage / "runs" / "bear-7", summary(0, of=0, quality=0.15))
    write_pruning(storage / "runs" / "sft", summary(8), "pruning_full_valid", normalize="full", split="valid")
    return storage


@pytest.fixture(scope="module")
def written(storage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(storage, tmp_path_factory.mktemp("report")).parent


def test_tables_hold_the_numbers_of_the_summaries(storage: Path) -> None:
    tables = build_pruning(collect(storage).runs)
    assert [(t.dataset, t.normalize, t.split) for t in tables] == [
        ("demo", "trie", "test"),
        ("demo", "full", "valid"),
    ]
    sft, msl, bear = tables[0].rows
    assert [r.label for r in (sft, msl, bear)] == ["SFT", "MSL", "BEAR"]
    assert [(r.k, r.exact.count, r.exact.of, r.pool.count, r.pool.of) for r in sft.rates] == [
        (5, 10, 40, 12, 44),
        (10, 20, 40, 22, 44),
    ]
    assert sft.rates[1].exact.share is not None and sft.rates[1].exact.share.value == 0.5
    assert bear.rates[0].exact.share is None and bear.cut_gap is None and bear.pruned == 0
    assert sft.pruned == 20 and sft.at_cut.count == 10 and sft.cut_steps == {1: 17, 3: 2, 15: 1}
    assert [(s.method, s.width) for s in sft.searches] == [
        ("beam 10", 10),
        ("beam 20", 20),
        ("beam 50", 50),
        ("exact", None),
    ]
    assert [s.milliseconds for s in sft.searches] == pytest.approx([4, 8, 16, 32])
    assert sft.searches[3].metrics["ndcg@10"].value == pytest.approx(0.13)


def test_what_makes_rows_unlike_is_said(storage: Path) -> None:
    notes = build_pruning(collect(storage).runs)[0].notes
    assert notes == (
        "The rows differ in the node budget: SFT None, MSL 500, BEAR None.",
        "Random samples of the test cases, not all of them: MSL 100 of 250.",
        "MSL: the node budget ended before it was known whether a target deserves a place; such cases are "
        "left out of the exact rates (3 at K = 5, 3 at K = 10).",
    )


def test_cells_are_the_numbers_in_words(storage: Path) -> None:
    table = build_pruning(collect(storage).runs)[0]
    header, rows = rate_cells(table.rows)
    assert header[:6] == ["Method", "cases", "PR@5 exact", "PR@5 pool", "PR@10 exact", "PR@10 pool"]
    assert rows[0] == [
        "SFT",
        "100",
        "25.0% [15.0%, 35.0%], 10/40",
        "27.3% [17.3%, 37.3%], 12/44",
        "50.0% [40.0%, 60.0%], 20/40",
        "50.0% [40.0%, 60.0%], 22/44",
        "90.0% [80.0%, 100.0%]",
        "50.0% [40.0%, 60.0%]",
        "0.75",
    ]
    assert rows[2][2] == "–, 0/0" and rows[2][6:] == ["–", "–", "–"]
    header, rows = search_cells(table.rows)
    assert header == ["Method", "search", "HR@10", "NDCG@10", "proven", "nodes/user", "ms/user"]
    assert len(rows) == 3 * len(WIDTHS)
    assert rows[1][1:] == ["beam 20", "0.2200 [0.1100, 0.4400]", "0.1100 [0.0550, 0.2200]", "–", "60", "8.0"]
    assert causes(table.rows[0]) == (
        "Of 20 targets pruned from the true top 10: 90.0% [80.0%, 100.0%] violate (3.2) somewhere, "
        "50.0% [40.0%, 60.0%] at the cut; median gap 0.75 nats."
    )
    assert causes(table.rows[2]) == "No target of the true top 10 was pruned."


@pytest.mark.parametrize("rows", [slice(0, 1), slice(0, 7)])
def test_what_summarize_returns_can_be_told(rows: slice) -> None:
    """Also where nothing was pruned: no rate, no gap, no cause."""
    found = json.loads(json.dumps(summarize(FRAME[rows], beam_width=4, ks=(2, 4), widths=(20,), seed=0)))
    row = parse_row("SFT", {"settings": {"split": "test", "normalize": "trie"}, "summary": found})
    header, lines = rate_cells([row])
    assert len(header) == len(lines[0]) and search_cells([row])[1] and causes(row)
    assert (lines[0][-1] == "–") == (found["violations"]["pruned"] == 0) == (rows.stop == 1)


def test_the_page_has_the_section_in_plain_words(written: Path) -> None:
    page = Page((written / "index.html").read_text())
    words = " ".join(page.text.split())
    assert len(page.ids) == len(set(page.ids)) and "pruning" in page.ids
    for text in (
        "What beam search loses",
        "the true rank among all titles of the catalogue decides",
        "50.0% [40.0%, 60.0%], 20/40",
        "MSL 100 of 250",
        "softmax over the vocabulary (full), valid split",
        "ms/user",
    ):
        assert text in words, text
    tags = [tag for tag, _ in page.elements]
    assert tags.count("table") == tags.count("caption")
    assert tags.count("svg") == 12 + (2 + 1 + 2) + (2 + 1 + 2)
    charts = [str(a["aria-label"]) for t, a in page.elements if a.get("role") == "img"]
    assert any(
        "SFT: 17 at step 1, 2 at step 3, 1 at step 15." in c and "BEAR: none pruned" in c for c in charts
    )
    assert any("MSL: PR@5 12.5% [2.5%, 22.5%] exact" in c for c in charts)
    assert any("SFT: beam 10 0.1000 in 4.0 ms and 30 nodes" in c for c in charts)
    assert ("a", {"href": "#pruning"}) in page.elements


def test_files_hold_tables_and_figures(written: Path) -> None:
    names = {p.relative_to(written).as_posix() for p in written.rglob("*") if "pruning" in p.name}
    figures = {
        f"figures/1-demo-local-tiny-pruning-{which}-{what}.{kind}"
        for which in ("trie", "full-valid")
        for what in ("rate", "steps", "cost")
        for kind in ("png", "svg")
    }
    tables = {f"tables/1-demo-local-tiny-pruning-{which}.tex" for which in ("trie", "full-valid")}
    assert names == figures | tables | {
        f"tables/{n}.csv" for n in ("pruning", "pruning_search", "pruning_steps")
    }


def test_csv_and_latex_and_markdown_hold_the_same_numbers(written: Path) -> None:
    def table(name: str) -> list[dict[str, str]]:
        return list(csv.DictReader((written / "tables" / name).read_text().splitlines()))

    rates = {(r["method"], r["normalizer"], r["share"]): r for r in table("pruning.csv")}
    assert len(rates) == 4 * 6
    row = rates["SFT", "trie", "pr@10 exact"]
    assert (row["value"], row["low"], row["high"], row["count"], row["of"]) == (
        "0.5",
        "0.4",
        "0.6",
        "20",
        "40",
    )
    assert rates["BEAR", "trie", "violates (3.2)"]["value"] == ""
    searches = table("pruning_search.csv")
    assert len(searches) == 4 * len(WIDTHS) * 4
    exact = next(r for r in searches if r["search"] == "exact" and r["metric"] == "hr@5")
    assert (exact["width"], exact["mean"], exact["milliseconds"]) == ("", "0.13", "32")
    assert [(r["step"], r["count"], r["of"]) for r in table("pruning_steps.csv")][:3] == [
        ("1", "17", "20"),
        ("3", "2", "20"),
        ("15", "1", "20"),
    ]
    text = (written / "report.md").read_text()
    assert "## What beam search loses" in text and "| SFT | 100 | 25.0% [15.0%, 35.0%], 10/40 |" in text
    assert text.index("What beam search loses") < text.index("Departures")
    tex = (written / "tables" / "1-demo-local-tiny-pruning-trie.tex").read_text()
    assert r"SFT & 100 & 25.0\% {[}15.0\%, 35.0\%{]}, 10/40 &" in tex
    columns = [x.count("&") for x in tex.splitlines() if x.endswith(r"\\")]
    assert columns == [8] * 4 + [6] * (1 + 3 * len(WIDTHS))


def test_without_an_analysis_there_is_no_section(report: Path) -> None:
    page = Page((report / "index.html").read_text())
    assert "pruning" not in page.ids and "What beam search loses" not in page.text
    assert "What beam search loses" not in (report / "report.md").read_text()


def test_figures_have_room_for_many_methods(tmp_path: Path) -> None:
    for i in range(18):
        run = write_run(tmp_path / "runs" / f"r{i:02d}", method=f"METHOD {i}", seed=i, n=40, users_count=20)
        write_pruning(run, summary(8))
    (table,) = build_pruning(collect(tmp_path).runs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns where the axes have no room left
        for figure in pruning_figures("many", table):
            save(figure, tmp_path / "figures")
    assert len(list((tmp_path / "figures").glob("many-*.png"))) == 3


def test_unfinished_runs_have_no_analysis_yet(tmp_path: Path) -> None:
    write_run(tmp_path / "a", method="SFT", n=20)
    write_pruning(write_run(tmp_path / "b", method="MSL", status=None, hit=None), summary(4))
    assert build_pruning(collect(tmp_path).runs) == []


def test_names_of_others_are_text(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", method=HOSTILE, dataset=HOSTILE, base_model=HOSTILE, n=20)
    content = summary(6)
    content["search"][0]["method"] = HOSTILE
    write_pruning(run, content)
    out = write_report(tmp_path).parent
    page = (out / "index.html").read_text()
    assert "<script" not in page.lower() and Page(page)
    section = (out / "report.md").read_text().partition("## What")[2]
    assert not re.search(r"(?<!\\)<", section)
    assert {len(re.findall(r"(?<!\\)\|", x)) for x in section.splitlines() if x.startswith("| ")} == {10, 8}
    (path,) = (out / "tables").glob("*-pruning-trie.tex")
    body = re.sub(r"\\[&%$#_{}]|\\\\", "", path.read_text().partition("\n")[2]).replace(r"$^\dagger$", "")
    assert not set("$#%~^_") & set(body) and body.count("{") == body.count("}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("search"), "search"),
        (lambda c: c["pruning"]["10"].pop("pool"), "pool"),
        (lambda c: c["search"][1].update(seconds="fast"), "fast"),
        (lambda c: c.update(cut_steps=[1]), "items"),
    ],
)
def test_a_damaged_summary_stops_the_report_with_its_name(tmp_path: Path, change: Any, message: str) -> None:
    content = summary(4)
    change(content)
    write_pruning(write_run(tmp_path / "a", method="SFT", n=20), content)
    with pytest.raises(DataError, match=rf"a/pruning/summary\.json is damaged .*{message}"):
        write_report(tmp_path)


def test_something_else_in_its_place_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", method="SFT", n=20)
    (run / "pruning").mkdir()
    (run / "pruning" / "summary.json").write_text('{"n": 3}')
    with pytest.raises(DataError, match=r"a/pruning/summary\.json has no 'settings'"):
        write_report(tmp_path)
