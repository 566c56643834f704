"""`bearray paper --smoke`: everything once on the demo catalogue, and what a second call does."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest

from bearray.paper.config import PaperConfig, defaults
from bearray.paper.run import run_paper
from bearray.tuning.main import parse

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(2_400),
]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> tuple[PaperConfig, Path]:
    storage = tmp_path_factory.mktemp("paper")
    config = parse(defaults, ["--smoke", "--storage", str(storage)])
    return config, run_paper(config).parent


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def test_every_cell_of_what_was_asked_for_is_there(smoke: tuple[PaperConfig, Path]) -> None:
    config, document = smoke
    for number, methods in ((2, 16), (3, 6), (4, 6), (5, 3)):
        rows = _rows(document / "tables" / f"table{number}.csv")
        ours = [row for row in rows if row["data_set"] in ("demo", "demo-s")]
        assert {row["status"] for row in ours} == {"tested"}, number
        assert len({(row["block"], row["method"]) for row in ours}) >= methods
        assert all(0 <= float(row["low"]) <= float(row["mean"]) <= float(row["high"]) <= 1 for row in ours)
    for number in config.figures:
        assert _rows(document / "tables" / f"figure{number}.csv"), number
        assert (document / "figures" / f"figure{number}.svg").stat().st_size > 2_000
    assert "not run" not in {row["verdict"] for row in _rows(document / "tables" / "findings.csv")}
    page = (document / "index.html").read_text(encoding="utf-8")
    assert "stand-in" in page and "<script" not in page


def test_d3_decodes_what_sft_has_learnt(smoke: tuple[PaperConfig, Path]) -> None:
    part = smoke[1].parent / "demo" / "bigrec-local-tiny"
    d3 = part / "decoded" / "d3-42"
    about = json.loads((d3 / "config.json").read_text())
    result = json.loads((d3 / "result.json").read_text())
    sft = part / "runs" / about["decoded_from"]
    assert about["decoded_from"].startswith("sft-") and result["checkpoint"].startswith(str(sft))
    frames = [
        pd.concat([pd.read_parquet(f) for f in sorted((run / "predictions").glob("*.parquet"))]).sort_values(
            "row"
        )
        for run in (d3, sft)
    ]
    for column in ("row", "user_id", "target"):
        assert frames[0][column].tolist() == frames[1][column].tolist()
    assert (frames[0]["scores"].map(list).tolist()) != frames[1]["scores"].map(list).tolist()
    assert set(result["test"]) == {"trie", "full", "trie_lp1", "full_lp1"} and "ndcg@10" in result["valid"]


def test_sensitivity_was_never_tested(smoke: tuple[PaperConfig, Path]) -> None:
    runs = smoke[1].parent / "demo" / "bigrec-local-tiny" / "sensitivity" / "runs"
    results = [json.loads(f.read_text()) for f in runs.glob("*/result.json")]
    assert len(results) == len(smoke[0].lam) + len(smoke[0].xi)  # the search draws no point of the grid
    assert all(r["status"] == "finished" and "test" not in r for r in results)
    assert not list(runs.glob("*/predictions*"))


def test_a_second_call_runs_nothing_and_writes_the_same(smoke: tuple[PaperConfig, Path]) -> None:
    config, document = smoke

    def stamps() -> dict[Path, int]:
        kept = [f for f in document.parent.rglob("*") if f.is_file() and document not in f.parents]
        return {f: f.stat().st_mtime_ns for f in kept if ".lock" not in f.parts and f.name != "paper.json"}

    before, page = stamps(), (document / "index.html").read_bytes()
    run_paper(config)
    assert stamps() == before
    run_paper(dataclasses.replace(defaults(), storage=config.storage, document_only=True))
    assert (document / "index.html").read_bytes() == page
