"""What came out: every verdict by numbers that ask for it, and none without."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bearray.paper.document.finding import Finding
from bearray.paper.document.findings import build_findings
from bearray.paper.document.measured import costs_of, sure
from bearray.paper.document.methods import compared
from bearray.paper.document.read import read_material
from bearray.paper.document.sheets import build_sheets
from bearray.report.pruning import Estimate, Share
from bearray.stats import holm
from tests.efficiency.planted import content, training
from tests.paper.storage import (
    LLARA,
    SAMPLE,
    TOY,
    paper_config,
    plant_costs,
    write_method,
    write_paper,
    write_record,
)
from tests.report.test_pruning import summary, write_pruning


def findings(root: Path, **changes: Any) -> dict[str, Finding]:
    """Those of Toy, by the beginning of their claim."""
    material = read_material(paper_config(root, datasets=("toy",), **changes))
    sheets = [sheet for table in (2, 3, 4, 5) for sheet in build_sheets(material, table)]
    return {finding.claim: finding for finding in build_findings(material, sheets)}


def one(found: dict[str, Finding], start: str) -> Finding:
    (own,) = [finding for claim, finding in found.items() if claim.startswith(start)]
    return own


@pytest.mark.parametrize(
    ("bear", "msl", "verdict"), [(0.8, 0.2, "holds"), (0.2, 0.8, "does not hold"), (0.2, 0.2, "undecided")]
)
def test_accuracy_is_decided_by_a_paired_test(tmp_path: Path, bear: float, msl: float, verdict: str) -> None:
    write_method(tmp_path, LLARA, "bear", bear)
    write_method(tmp_path, LLARA, "msl", msl)
    found = one(findings(tmp_path), "BEAR recommends better than MSL with LLaRA")
    assert found.verdict == verdict
    assert "Paired over 80 users" in found.told and "The paper: 0.0315 and 0.0290." in found.told


def test_all_comparisons_are_corrected_together(tmp_path: Path) -> None:
    config = write_paper(tmp_path)
    material = read_material(config)
    sheets = [sheet for table in (2, 3, 4, 5) for sheet in build_sheets(material, table)]
    main = next(s for s in sheets if s.table == 2 and s.dataset == "toy")
    pairs = [("bear", "sasrec"), ("bear", "msl"), ("msl", "sft")]

    def scores(sheet: Any, name: str) -> Any:
        return sheet.line(name).scores["trie"]

    tests = [compared(scores(main, a), scores(main, b), "ndcg@10") for a, b in pairs]
    llara = next(s for s in sheets if s.block == "LLaRA" and s.dataset == "toy")
    tests.append(compared(scores(llara, "bear"), scores(llara, "msl"), "ndcg@10"))
    corrected = holm([test.p_value for test in tests if test])
    found = {f.claim: f for f in build_findings(material, sheets) if f.dataset == "toy"}
    told = one(found, "BEAR recommends better than MSL with LLaRA").told
    assert f"p = {corrected[-1]:.3f} after Holm's correction for 4 comparisons" in told


@pytest.mark.parametrize(
    ("pruned", "violating", "verdict"),
    [
        (100, 95, "holds"),
        (100, 40, "does not hold"),
        (100, 72, "undecided"),
        (3, 3, "undecided"),  # all of them, but so few
    ],
)
def test_violations_are_decided_by_an_interval_that_knows_how_many_there_are(
    tmp_path: Path, pruned: int, violating: int, verdict: str
) -> None:
    run = write_method(tmp_path, TOY, "sft", 0.2)
    measured = summary(pruned, of=200)
    share = violating / pruned
    width = 0.0 if share == 1 else 0.05
    measured["violations"]["any"] = {
        "rate": share, "low": share - width, "high": share + width, "count": violating,
    }  # fmt: skip
    write_pruning(run, measured)
    assert one(findings(tmp_path), "More than 70% of prunings").verdict == verdict


@pytest.mark.parametrize(
    ("bear", "sft", "verdict"), [(5, 60, "holds"), (60, 5, "does not hold"), (30, 35, "undecided")]
)
def test_pruning_is_compared_by_intervals(tmp_path: Path, bear: int, sft: int, verdict: str) -> None:
    for name, pruned in (("bear", bear), ("sft", sft)):
        write_pruning(write_method(tmp_path, TOY, name, 0.2), summary(pruned, of=100))
    found = findings(tmp_path)
    start = "Beam search prunes fewer deserving targets with BEAR than with"
    assert one(found, f"{start} SFT").verdict == verdict
    assert one(found, f"{start} MSL").verdict == "not run"
    assert one(found, f"{start} MSL").told == "MSL: not run."


def test_nothing_that_deserves_a_place_decides_nothing(tmp_path: Path) -> None:
    for name in ("bear", "sft"):
        write_pruning(write_method(tmp_path, TOY, name, 0.2), summary(0, of=0))
    found = findings(tmp_path)
    assert (
        one(found, "Beam search prunes fewer deserving targets with BEAR than with SFT").verdict
        == "undecided"
    )
    assert one(found, "More than 70%").verdict == "undecided"


@pytest.mark.parametrize(
    ("ratio", "rounds", "bear", "direct"),
    [
        (1.0, 6, "holds", "does not hold"),
        (1.5, 6, "does not hold", "does not hold"),
        (5.0, 6, "does not hold", "holds"),
        (1.0, 2, "undecided", "undecided"),  # an interval of two rounds covers too little
    ],
)
def test_costs_are_decided_by_rounds(
    tmp_path: Path, ratio: float, rounds: int, bear: str, direct: str
) -> None:
    plant_costs(tmp_path, SAMPLE, "beam_simulation")
    file = tmp_path / SAMPLE.folder / "efficiency" / "efficiency.json"
    planted = training(rounds)
    for each in planted["rounds"]:
        for name in ("bear", "sdpo"):
            each["turns"][name]["seconds"] = [ratio * s for s in each["turns"]["sft"]["seconds"]]
    text = json.dumps(content(dataset="toy-s", training=planted)).replace('"sdpo"', '"beam_simulation"')
    file.write_text(text)
    found = findings(tmp_path)
    assert one(found, "Training with BEAR").verdict == bear
    assert one(found, "Training on objective (3.1)").verdict == direct
    assert f"{ratio:.2f} times SFT's step" in one(found, "Training with BEAR").told


def test_a_method_that_was_timed_with_settings_of_its_own_has_its_runs_beside_it(tmp_path: Path) -> None:
    write_record(tmp_path)
    write_method(tmp_path, TOY, "sft", 0.5)
    write_method(tmp_path, TOY, "sdpo", 0.5, changes={"objective.negatives": 5})
    plant_costs(tmp_path, TOY, "sdpo")
    file = tmp_path / TOY.folder / "efficiency" / "efficiency.json"
    text = (
        file.read_text().replace('"sdpo": ', '"sdpo:negatives=5": ').replace('"sdpo"]', '"sdpo:negatives=5"]')
    )
    planted = json.loads(text)
    material = read_material(paper_config(tmp_path))
    for number, there in ((5, True), (7, False)):
        planted["training"]["contenders"]["sdpo:negatives=5"]["negatives"] = number
        file.write_text(json.dumps(planted))
        found = costs_of(material, TOY)
        cost = found.of("sdpo") if found else None
        assert cost is not None and (cost.point is not None) == there


def test_close_asks_for_the_whole_interval(tmp_path: Path) -> None:
    write_method(tmp_path, SAMPLE, "bear", 0.5)
    same = write_method(tmp_path, SAMPLE, "beam_simulation", 0.5)
    claim = "Objective (3.1) itself is close to BEAR"
    assert one(findings(tmp_path), claim).verdict == "undecided"  # other lists of the same quality
    bear = tmp_path / SAMPLE.folder / "runs" / "bear-42"
    for folder in ("predictions", "predictions_full"):
        shutil.copytree(bear / folder, same / folder, dirs_exist_ok=True)
    shutil.copy(bear / "result.json", same / "result.json")
    assert one(findings(tmp_path), claim).verdict == "holds"


def test_what_is_lacking_is_named(tmp_path: Path) -> None:
    write_method(tmp_path, TOY, "sdpo", 0.2)
    write_method(tmp_path, TOY, "sdpo_bear", None, status="failed", error="no more memory", chosen=False)
    found = findings(tmp_path)
    assert one(found, "BEAR's regulariser").told == "BEAR on S-DPO: failed: no more memory."
    best = one(found, "BEAR recommends better than the best other")
    assert (best.verdict, best.told) == ("not run", "BEAR: not run. The paper: +4.98%.")


def test_other_test_cases_are_not_compared(tmp_path: Path) -> None:
    write_method(tmp_path, TOY, "bear", 0.5)
    write_method(tmp_path, TOY, "msl", 0.5, data_hash="e" * 16)
    found = findings(tmp_path)
    pair = found["BEAR recommends better than MSL"]
    assert pair.verdict == "not run" and pair.told.startswith("They were tested on other cases.")
    assert one(found, "BEAR recommends better than the best other").told.startswith("BEAR: other test cases.")


def test_a_share_on_which_all_users_agree_is_not_certain() -> None:
    found = sure(Share(count=0, of=3, share=Estimate(0.0, 0.0, 0.0)))
    assert (found.value, found.low) == (0, 0) and found.high == pytest.approx(0.5615, abs=1e-4)  # Wilson's
    wide = sure(Share(count=2, of=4, share=Estimate(0.5, 0.0, 1.0)))
    assert (wide.low, wide.high) == (0, 1)
