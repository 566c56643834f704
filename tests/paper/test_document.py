"""The paper's document, from a storage in which some runs are there, some failed and most are missing."""

from __future__ import annotations

import csv
import html
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from bearray.errors import DataError
from bearray.paper.config import PaperConfig
from bearray.paper.document import write as document
from bearray.paper.document.write import write_document
from bearray.report.headline import signed
from tests.paper.storage import DEMO, LLARA, TOY, paper_config, write_method, write_paper, write_record

Rows = list[dict[str, str]]


@pytest.fixture(scope="module", autouse=True)
def no_pdf() -> Iterator[None]:
    """No browser is started here; test_pdf has that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "write_pdf", lambda page, pdf: "not here")
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PaperConfig:
    return write_paper(tmp_path_factory.mktemp("paper") / "storage")


@pytest.fixture(scope="module")
def folder(config: PaperConfig) -> Path:
    return write_document(config).parent


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


def rows_of(folder: Path, name: str) -> Rows:
    with (folder / "tables" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def cell(rows: Rows, **where: str) -> dict[str, str]:
    found = [row for row in rows if all(row[key] == value for key, value in where.items())]
    assert len(found) == 1, (where, len(found))
    return found[0]


def from_predictions(runs: list[Path], decoding: str, metric: str) -> tuple[float, list[float]]:
    """Mean over seeds and each seed's own, straight from the shards."""
    name, k = metric.split("@")
    means = []
    for run in runs:
        where = run / ("predictions" if decoding == "trie" else f"predictions_{decoding}")
        values = []
        for shard in sorted(where.glob("*.parquet")):
            for rank in pq.read_table(shard)["rank"].to_pylist():
                hit = rank < int(k)
                values.append((1.0 if name == "hr" else 1 / math.log2(rank + 2)) if hit else 0.0)
        means.append(sum(values) / len(values))
    return sum(means) / len(means), means


@pytest.mark.parametrize("metric", ["ndcg@5", "ndcg@10", "hr@5", "hr@10"])
@pytest.mark.parametrize(
    ("method", "decoding", "runs"),
    [
        ("BEAR", "trie", ["toy/bigrec-local-tiny/runs/bear-42", "toy/bigrec-local-tiny/runs/bear-43"]),
        ("SFT", "full", ["toy/bigrec-local-tiny/runs/sft-42", "toy/bigrec-local-tiny/runs/sft-43"]),
        ("SFT", "trie_lp1", ["toy/bigrec-local-tiny/runs/sft-42"]),
        ("D3", "trie", ["toy/bigrec-local-tiny/decoded/d3-42", "toy/bigrec-local-tiny/decoded/d3-43"]),
        ("SASRec", "trie", ["toy/baselines/sasrec-42"]),
    ],
)
def test_numbers_are_those_of_the_predictions(
    config: PaperConfig, folder: Path, page: str, method: str, decoding: str, runs: list[str], metric: str
) -> None:
    root = Path(config.storage)
    mean, means = from_predictions([root / run for run in runs], decoding, metric)
    found = cell(
        rows_of(folder, "table2.csv"), data_set="toy", decoding=decoding, method=method, metric=metric
    )
    assert float(found["mean"]) == pytest.approx(mean, abs=1e-9)
    assert float(found["low"]) <= mean <= float(found["high"])
    assert found["status"] == "tested" and int(found["seeds"]) == len(runs) and found["n"] == "200"
    if len(runs) > 1:
        assert float(found["seed_sd"]) == pytest.approx(float(np.std(means, ddof=1)), abs=1e-9)
    else:
        assert found["seed_sd"] == ""
    assert f"{mean:.4f}" in page
    assert f"{mean:.4f}" in (folder / "tables" / f"table2-{decoding}.tex").read_text()


def test_a_difference_is_ours_shifted_by_the_papers_number(folder: Path, page: str) -> None:
    for found in rows_of(folder, "table2.csv"):
        if found["status"] == "tested" and found["paper"]:
            for ours, shifted in (
                ("mean", "difference"),
                ("low", "difference_low"),
                ("high", "difference_high"),
            ):
                assert float(found[shifted]) == pytest.approx(float(found[ours]) - float(found["paper"]))
    bear = cell(rows_of(folder, "table2.csv"), data_set="toy", decoding="trie", method="BEAR", metric="hr@10")
    assert bear["paper"] == "0.0574"
    # Wilson's interval of 275 of 4794, by its formula
    n, p, z = 4794, 275 / 4794, 1.959963985
    middle, width = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    for end, value in (("paper_low", middle - width), ("paper_high", middle + width)):
        assert float(bear[end]) == pytest.approx(value / (1 + z * z / n), abs=1e-6)
    ndcg = cell(
        rows_of(folder, "table2.csv"), data_set="toy", decoding="trie", method="BEAR", metric="ndcg@10"
    )
    assert ndcg["paper"] == "0.0316" and ndcg["paper_low"] == ""
    assert "The paper gives no intervals" in page


def over_users(runs: list[Path], metric: str) -> float:
    """Mean over users of each one's mean over cases and seeds, straight from the shards."""
    name, k = metric.split("@")
    values: dict[int, list[float]] = {}
    for run in runs:
        for shard in (run / "predictions").glob("*.parquet"):
            table = pq.read_table(shard)
            for user, rank in zip(table["user_id"].to_pylist(), table["rank"].to_pylist(), strict=True):
                gain = 1.0 if name == "hr" else 1 / math.log2(rank + 2)
                values.setdefault(user, []).append(gain if rank < int(k) else 0.0)
    return sum(sum(own) / len(own) for own in values.values()) / len(values)


def test_bear_stands_against_the_best_other_of_the_same_metric(
    config: PaperConfig, folder: Path, page: str
) -> None:
    rows, root = rows_of(folder, "table2.csv"), Path(config.storage)
    runs = {
        name.upper(): sorted((root / TOY.folder / "runs").glob(f"{name}-4[23]"))
        for name in ("sft", "msl", "bear")
    }
    runs |= {"SASRec": [root / "toy/baselines/sasrec-42"]}
    for metric in ("ndcg@5", "hr@10"):
        tested = {
            row["method"]: float(row["mean"])
            for row in rows
            if (row["data_set"], row["decoding"], row["metric"], row["status"])
            == ("toy", "trie", metric, "tested")
        }
        bear = tested.pop("BEAR")
        best = max(tested, key=lambda name: tested[name])
        gain = cell(rows_of(folder, "table2-improvement.csv"), data_set="toy", decoding="trie", metric=metric)
        assert gain["versus"] == best
        ours, other = (over_users(runs[name], metric) for name in ("BEAR", best))
        assert float(gain["difference"]) == pytest.approx(ours - other, abs=1e-9)
        assert float(gain["relative"]) == pytest.approx(ours / other - 1, abs=1e-9)
        # 200 cases of 80 users, not the same number each: means over cases are others
        assert abs(bear / tested[best] - ours / other) > 1e-3
        assert float(gain["p"]) < 0.05
        assert f"{signed(ours / other - 1, '.2%')} over {best}" in page
        assert signed(ours - other, ".4f") in page
    assert gain["paper_percent"] == "4.17"


@pytest.mark.parametrize(
    ("data_set", "method", "decoding", "status"),
    [
        ("toy", "IGD", "trie", "failed: worker 0 ran out of memory"),
        ("toy", "GRPO", "trie", "in training"),
        ("toy", "S-DPO", "trie", "trained, not tested"),
        ("toy", "CFT", "trie", "not run"),
        ("toy", "D3", "full", "not decoded so"),
        ("demo", "BEAR", "trie", "not run"),
        ("office", "BEAR", "trie", "not run"),
    ],
)
def test_a_cell_without_a_number_says_why(
    folder: Path, page: str, data_set: str, method: str, decoding: str, status: str
) -> None:
    own = [
        row
        for row in rows_of(folder, "table2.csv")
        if (row["data_set"], row["method"], row["decoding"]) == (data_set, method, decoding)
    ]
    assert len(own) == 4 and {row["status"] for row in own} == {status}
    assert {row["mean"] for row in own} == {""}
    assert status in html.unescape(page)


def test_what_was_not_asked_for_still_has_the_papers_numbers(folder: Path, page: str) -> None:
    office = cell(
        rows_of(folder, "table2.csv"), data_set="office", decoding="trie", method="BEAR", metric="ndcg@10"
    )
    assert office["paper"] == "0.0421" and office["difference"] == ""
    assert "office: not run; the paper's numbers" in page
    large = [row for row in rows_of(folder, "table4.csv") if row["block"] == "8B"]
    assert large and {row["status"] for row in large} == {"not run"}


def test_a_model_of_two_tables_is_run_once_and_shown_in_both(folder: Path) -> None:
    where = {"data_set": "toy", "decoding": "trie", "method": "BEAR", "metric": "ndcg@10"}
    two, four = (
        cell(rows_of(folder, f"table{n}.csv"), **where, **b) for n, b in ((2, {}), (4, {"block": "1B"}))
    )
    assert two["mean"] == four["mean"] and two["paper"] == "0.0316" and four["paper"] == "0.024"


def test_figures_hold_the_numbers_of_the_measurements(folder: Path, page: str) -> None:
    pr = cell(rows_of(folder, "figure3.csv"), **{"data set": "toy", "K": "10", "counting": "exact"})
    assert (pr["PR@K"], pr["pruned"], pr["of"], pr["paper"]) == ("0.95", "38", "40", "0.8439")
    violating = cell(rows_of(folder, "figure4.csv"), **{"data set": "toy", "violated": "anywhere"})
    assert float(violating["share"]) == pytest.approx(36 / 38)
    six = {r["method"]: r["PR@10"] for r in rows_of(folder, "figure6.csv") if r["counting"] == "exact"}
    assert six == {"SFT": "0.95", "MSL": "0.5", "BEAR": "0.1"}
    nine = cell(rows_of(folder, "figure9.csv"), method="BEAR")
    assert float(nine["times SFT"]) == pytest.approx(1.5) and nine["NDCG@10"]
    five = {r["method"]: float(r["times SFT"]) for r in rows_of(folder, "figure5.csv")}
    assert five == {"SFT": 1.0, "BEAR": 1.5, "(3.1)": 2.0}
    for name in ("figure3", "figure4", "figure6", "figure8", "figure5", "figure9"):
        assert (folder / "figures" / f"{name}.svg").stat().st_size > 1000
        assert (folder / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert not list((folder / "figures").glob("figure7*"))
    assert "toy S-DPO: trained, not tested" in page and "demo SFT: tested, prunings not measured" in page


def test_sensitivity_is_on_validation_around_the_chosen_settings(folder: Path, page: str) -> None:
    rows = rows_of(folder, "figure8.csv")
    found = {(r["setting"], r["value"]): (r["valid NDCG@10"], r["chosen"]) for r in rows}
    assert found == {
        ("lambda", "0.25"): ("0.2", "True"),
        ("lambda", "1"): ("0.15", "False"),
        ("lambda", "4"): ("0.12", "False"),
        ("xi", "0.5"): ("0.18", "False"),
        ("xi", "1"): ("0.2", "True"),
        ("xi", "2"): ("0.21", "False"),
    }
    assert "On validation on purpose: nothing is tuned on test here" in page


def test_table_1_has_ours_and_the_papers(folder: Path, page: str) -> None:
    rows = rows_of(folder, "table1.csv")
    toy = cell(rows, **{"data set": "toy", "whose": "ours"})
    assert toy == cell(rows, **{"data set": "toy", "whose": "paper"}) | {"whose": "ours"}
    assert cell(rows, **{"data set": "demo", "whose": "paper"})["users"] == ""
    assert cell(rows, **{"data set": "clothing", "whose": "paper"})["items"] == "22948"
    assert "0.0735%" in page


def test_what_is_comparable_is_said_from_the_runs(config: PaperConfig, folder: Path, page: str) -> None:
    facts = {(r["element"], r["about"]): r for r in rows_of(folder, "comparable.csv")}
    two = {about: facts["Table 2", about] for element, about in facts if element == "Table 2"}
    assert two["base model"]["comparable"] == "other" and "local stand-in" in two["base model"]["ours"]
    assert two["seeds"]["ours"] == "42, 43"
    assert two["test cases"]["ours"] == "toy 200, demo 200" and two["test cases"]["paper"] == "toy 4,794"
    assert two["baselines' epochs"] | {"element": ""} == {
        "element": "", "about": "baselines' epochs", "ours": "20", "paper": "200", "comparable": "other",
    }  # fmt: skip
    assert "3 trials on validation" in two["lambda/xi"]["ours"]
    assert facts["Table 5", "sampled users"]["comparable"] == "other"
    told = two["model without text"]["ours"]
    row = json.loads((Path(config.storage) / "toy/baselines/sasrec-42/result.json").read_text())
    assert told == (
        "toy: D3 alpha 0.7, SASRec of 20 epochs, the row's own of that seed (validation NDCG@10 "
        f"{row['valid']['ndcg@10']:.4f})"
    )
    assert facts["Figure 3", "data"]["comparable"] == "same"
    assert "Not comparable with the paper number by number: data, base model" in page


def test_every_element_has_a_place_and_a_way_back(page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for link in re.findall(r'href="#([^"]+)"', page):
        assert link in ids
    for number in range(1, 6):
        assert f'href="#table-{number}"' in page
    for number in range(3, 10):
        assert f'href="#figure-{number}"' in page
    assert page.count("Back to the contents") == 5 + 7 + 1
    assert "<script" not in page and "http://" not in page and "https://" not in page


def test_the_same_runs_give_the_same_bytes_and_nothing_stale_stays(config: PaperConfig, folder: Path) -> None:
    def contents() -> dict[str, bytes]:
        return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}

    before = contents()
    (folder / "tables" / "table9.csv").write_text("old")
    (folder / "figures" / "figure2.svg").write_text("old")
    (folder / "paper.pdf").write_text("of an older page")
    write_document(config)
    assert contents() == before


def test_latex_tables_are_whole(folder: Path) -> None:
    tables = sorted((folder / "tables").glob("*.tex"))
    assert len(tables) > 10
    for table in tables:
        lines = table.read_text(encoding="utf-8").splitlines()
        assert lines[1] == r"\begin{table}[t]" and lines[-1] == r"\end{table}"
        columns = len(re.search(r"\\begin\{tabular\}\{(l+r+)\}", "\n".join(lines))[1])  # type: ignore[index]
        body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
        assert body
        for line in body:
            assert line.endswith(r" \\") and len(re.findall(r"(?<!\\)&", line)) == columns - 1, (
                table.name,
                line,
            )
    wide = (folder / "tables" / "table2-trie.tex").read_text()
    assert r"\multicolumn{4}{c}{toy} & \multicolumn{4}{c}{demo} & \multicolumn{4}{c}{office}" in wide
    assert "BEAR & 0." in wide and r"Imp.\% & +" in wide


@pytest.mark.parametrize("prepared", [True, False])
def test_nothing_run_yet_is_a_document_too(tmp_path: Path, prepared: bool) -> None:
    if prepared:
        write_record(tmp_path)
    index = write_document(paper_config(tmp_path))
    text = index.read_text(encoding="utf-8")
    assert text.count("Nothing of it was run, so nothing is compared.") == 12 - prepared
    assert "Nothing was run yet" in text and text.count("Nothing to show yet.") == 7
    verdicts = {row["verdict"] for row in rows_of(index.parent, "findings.csv")}
    assert verdicts == {"not run"}
    assert not (index.parent / "figures").exists()


def test_only_what_is_asked_for_is_shown(tmp_path: Path) -> None:
    write_method(tmp_path, DEMO, "sft", 0.2)
    index = write_document(paper_config(tmp_path, table=(2,), figure=(8,)))
    headings = re.findall(r'<h2 id="([^"]+)"', index.read_text(encoding="utf-8"))
    assert headings == ["findings", "table-2", "figure-8", "runs"]
    names = {f.name for f in (index.parent / "tables").glob("*.csv")}
    assert names == {
        "comparable.csv", "figure8.csv", "findings.csv", "table2.csv", "table2-improvement.csv",
    }  # fmt: skip


def test_a_missing_seed_and_runs_of_other_settings_are_noted(tmp_path: Path) -> None:
    for seed in (42, 43):
        write_method(tmp_path, TOY, "sft", 0.2, seed)
    write_method(tmp_path, TOY, "sft", 0.9, suffix="-other", changes={"train.lr": 0.5})
    write_method(tmp_path, TOY, "bear", 0.3)
    write_method(tmp_path, TOY, "bear", None, 43, status="failed", error="the disk is full", chosen=False)
    index = write_document(paper_config(tmp_path, table=(2,)))
    text = html.unescape(index.read_text(encoding="utf-8"))
    assert "SFT: 1 tested run with other settings left out." in text
    assert "BEAR lacks seed 43 failed: the disk is full." in text
    found = cell(
        rows_of(index.parent, "table2.csv"), data_set="toy", decoding="trie", method="SFT", metric="hr@10"
    )
    assert found["seeds"] == "2" and float(found["mean"]) < 0.4


HOSTILE = "</style><script>window.ranScript = true</script>"
FORMULA = '=HYPERLINK("https://example.org";"x")\\input{/etc/passwd}'


def test_names_that_others_wrote_stay_text(tmp_path: Path) -> None:
    config = paper_config(
        tmp_path, datasets=(HOSTILE.replace("/", "\u2215"), FORMULA.replace("/", "")), sampled=()
    )
    first = write_method(tmp_path, DEMO, "sft", 0.2)
    for name, run in zip(config.datasets, ("sft", "msl"), strict=True):
        home = tmp_path / name / "bigrec-local-tiny" / "runs" / run
        home.parent.mkdir(parents=True)
        home.symlink_to(first)
        config_file = json.loads((home / "config.json").read_text())
        config_file |= {
            "dataset": name,
            "base_model_kind": HOSTILE,
            "versions": {HOSTILE: FORMULA},
            "git": HOSTILE,
        }
        (home / "config.json").write_text(json.dumps(config_file))
    broken = write_method(tmp_path, DEMO, "bear", None, status="failed", error=HOSTILE, chosen=False)
    home = tmp_path / config.datasets[0] / "bigrec-local-tiny" / "runs" / "bear"
    home.symlink_to(broken)
    index = write_document(config)
    text = index.read_text(encoding="utf-8")
    assert "<script" not in text and text.count("</style>") == 1
    assert html.escape(HOSTILE.replace("/", "\u2215"), quote=False)[:20] in text
    for table in sorted((index.parent / "tables").glob("*.csv")):
        with table.open(encoding="utf-8", newline="") as file:
            for line in csv.reader(file):
                for value in line:
                    number = re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?", value)
                    assert number or not value.startswith(("=", "+", "-", "@")), (table.name, value)
    own = {
        "begin", "end", "centering", "scriptsize", "caption", "toprule", "midrule", "bottomrule",
        "usepackage", "multicolumn", "textbackslash", "textasciitilde", "textasciicircum", "textless",
        "textgreater", "pm",
    }  # fmt: skip
    for table in sorted((index.parent / "tables").glob("*.tex")):
        assert set(re.findall(r"\\([a-zA-Z]+)", table.read_text(encoding="utf-8"))) <= own
    assert {f.parent for f in index.parent.rglob("*.tex")} == {index.parent / "tables"}


@pytest.mark.parametrize(
    "content", ["{", '{"data": 3}', '{"data": {"toy": 3}}', '{"data": {"toy": {"stats": 1}}}']
)
def test_a_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "paper.json").write_text(content)
    with pytest.raises(DataError, match=r"paper\.json"):
        write_document(paper_config(tmp_path))


def test_a_damaged_run_is_named(tmp_path: Path) -> None:
    run = write_method(tmp_path, LLARA, "bear", 0.2)
    (run / "result.json").write_text("{")
    with pytest.raises(DataError, match=r"llara-local-tiny/runs/bear-42/result\.json"):
        write_document(paper_config(tmp_path))


def test_the_record_may_hold_anything_beside(tmp_path: Path) -> None:
    stats: dict[str, Any] = {"users": None, "windows": {}, "density": "much"}
    (tmp_path / "paper.json").write_text(json.dumps({"config": 1, "data": {"toy": {"stats": stats}}}))
    assert write_document(paper_config(tmp_path, table=(1,))).exists()
