"""The report's section on cost, and the benchmark's own tables, from a planted efficiency.json."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bearray.efficiency.results import FILE, FOLDER
from bearray.errors import DataError, MissingFileError
from bearray.report import write_report
from bearray.report.collect import collect
from bearray.report.efficiency import Efficiency, parse, read_efficiency
from bearray.report.efficiency_figures import efficiency_figures
from bearray.report.efficiency_text import duration, figures, markdown, training_cells
from bearray.report.efficiency_write import write_efficiency
from bearray.report.figures import inline
from bearray.report.tables import build_tables
from tests.efficiency.planted import content, decoding, training
from tests.report.storage import write_run


def plant(storage: Path, **changes: Any) -> Path:
    folder = storage / FOLDER
    folder.mkdir(parents=True)
    (folder / FILE).write_text(json.dumps(content(**changes)))
    return storage


def found_in(storage: Path) -> Efficiency:
    """What a storage tells, without figures being drawn."""
    found = read_efficiency(storage, build_tables(collect(storage).runs))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of SFT, MSL and BEAR; SFT, BEAR and S-DPO were timed."""
    place = plant(tmp_path_factory.mktemp("cost") / "demo")
    for seed, method in enumerate(("SFT", "MSL", "BEAR")):
        write_run(place / "runs" / method.lower(), method=method, hit=0.2 + 0.1 * seed, seed=seed, n=80)
    return place


@pytest.fixture(scope="module")
def written(storage: Path) -> Path:
    return Path(write_efficiency(str(storage))[1])


def test_the_tables_say_what_was_measured(written: Path) -> None:
    text = (written / "table.md").read_text()
    assert text.startswith("# What it costs\n")
    row = next(line for line in text.splitlines() if line.startswith("| bear "))
    cells = [c.strip().replace("\\", "") for c in row.strip("|").split("|")]
    assert cells[1:3] == ["1.58 [1.35, 1.95]", "1.50 [1.50, 1.50]"]
    assert cells[3] == "1.00 [1.00, 1.00]"
    assert cells[5:8] == ["3", "1", "1"] and cells[8] == "500 (10%)"
    assert cells[9] == "15.8 s [13.5 s, 19.5 s]"
    assert "| generate | 15.8 \\[13.5, 19.5\\] | 3.00 \\[3.00, 3.00\\] |" in text
    assert "6 rounds of 2 optimiser steps of 8 windows on 1 worker" in text
    assert "2 cores of A Processor, 1 thread" in text
    assert "less than 95%" not in text


def test_csv_holds_every_measure_with_its_interval(written: Path) -> None:
    rows = list(csv.DictReader((written / "table.csv").open()))
    by = {(r["part"], r["name"], r["measure"]): r for r in rows}
    ratio = by["training", "sdpo", "ratio"]
    assert [float(ratio[k]) for k in ("value", "low", "high")] == pytest.approx([2.0] * 3)
    assert float(ratio["coverage"]) == pytest.approx(0.96875)
    assert float(by["training", "sdpo", "forward_passes_per_step"]["value"]) == 2
    assert ("training", "sdpo", "joules_per_step") not in by
    assert float(by["decoding", "generate", "ratio"]["value"]) == pytest.approx(3.0)


def test_ratios_of_all_pairs_are_in_a_file_of_their_own(written: Path) -> None:
    rows = list(csv.DictReader((written / "ratios.csv").open()))
    by = {(r["part"], r["name"], r["relative_to"]): r for r in rows}
    assert len(by) == len(rows) == 3 * 2 + 2
    pair = by["training", "sdpo", "bear"]
    assert [float(pair[k]) for k in ("ratio", "low", "high")] == pytest.approx([2 / 1.5] * 3)
    assert float(by["decoding", "beam", "generate"]["ratio"]) == pytest.approx(1 / 3)


def test_latex_is_balanced(written: Path) -> None:
    text = (written / "table.tex").read_text()
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    assert r"$\times$ SFT" in text and "×" not in text


def test_runs_are_set_against_the_cost_of_their_objectives(storage: Path, written: Path) -> None:
    found = found_in(storage)
    points = {p.label: p for p in found.points}
    assert set(points) == {"SFT", "BEAR"}  # MSL was not timed
    assert points["BEAR"].objective == "bear"
    assert points["BEAR"].epoch_seconds.value == pytest.approx(15.75)
    assert points["BEAR"].low <= points["BEAR"].ndcg <= points["BEAR"].high
    names = [f.name for f in efficiency_figures(found)]
    assert names == ["efficiency-ndcg", "efficiency-training", "efficiency-decoding"]
    for name in names:
        assert (written / "figures" / f"{name}.svg").exists()
        assert (written / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    alt = efficiency_figures(found)[0].alt
    assert "BEAR: 15.8 s" in alt and f"{points['BEAR'].ndcg:.4f}" in alt


@pytest.mark.parametrize(
    ("changes", "points"),
    [
        ({"objective.lam": 0.7, "objective.xi": 2.5}, 1),  # other numbers, the same work
        ({"objective.form": "hinge"}, 0),
        ({"objective.vocabulary": "full"}, 0),
    ],
)
def test_a_run_belongs_to_the_objective_that_computes_the_same(
    tmp_path: Path, changes: dict[str, Any], points: int
) -> None:
    plant(tmp_path)
    write_run(tmp_path / "runs" / "bear", method="BEAR", changes=changes, n=40)
    found = found_in(tmp_path)
    assert len(found.points) == points


def test_runs_of_other_data_or_models_are_not_in_the_figure(tmp_path: Path) -> None:
    plant(tmp_path)
    write_run(tmp_path / "runs" / "a", method="BEAR", data_hash="e" * 16, n=40)
    write_run(tmp_path / "runs" / "b", method="BEAR", base_model="local:small", n=40)
    found = found_in(tmp_path)
    assert found.points == ()


def timed_objectives(**settings: dict[str, Any]) -> dict[str, Any]:
    """A training part in which contenders have other settings than an objective's own."""
    part = training()
    for label, changes in settings.items():
        part["contenders"][label] |= changes
    return part


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("train.batch_size", 32),
        ("train.precision", "fp32"),
        ("model.lora_dropout", 0.0),
        ("model.backbone", "llara"),
    ],
)
def test_runs_that_took_other_times_are_said_to_be(tmp_path: Path, name: str, value: Any) -> None:
    plant(tmp_path)
    write_run(tmp_path / "runs" / "bear", method="BEAR", changes={name: value}, n=40)
    found = found_in(tmp_path)
    (note,) = [note for note in found.notes if "other settings" in note]
    assert f" here: {name}." in note


def test_epochs_matter_where_losses_take_turns(tmp_path: Path) -> None:
    part = timed_objectives(sdpo={"name": "sprec"})
    plant(tmp_path, training=part)
    write_run(tmp_path / "runs" / "bear", method="BEAR", changes={"train.epochs": 4}, n=40)
    found = found_in(tmp_path)
    assert len(found.points) == 1 and not any("other settings" in note for note in found.notes)
    changes = {"objective.name": "sprec", "train.epochs": 4}
    write_run(tmp_path / "runs" / "sprec", method="SPRec", changes=changes, n=40)
    found = found_in(tmp_path)
    assert len(found.points) == 2 and any("train.epochs" in note for note in found.notes)


@pytest.mark.parametrize(
    ("timed", "run", "points"),
    [(0.1, 0.2, 1), (0.1, None, 0), (None, 0.2, 0), (None, None, 1)],
)
def test_rosepo_with_a_teachers_scores_is_not_paired_with_one_without(
    tmp_path: Path, timed: float | None, run: float | None, points: int
) -> None:
    plant(tmp_path, training=timed_objectives(sdpo={"name": "rosepo", "smoothing": timed}))
    changes = {"objective.name": "rosepo", "objective.smoothing": run}
    write_run(tmp_path / "runs" / "rosepo", method="RosePO", changes=changes, n=40)
    found = found_in(tmp_path)
    assert len(found.points) == points


def test_a_storage_without_runs_has_bars_only(tmp_path: Path) -> None:
    found, where = write_efficiency(str(plant(tmp_path)))
    assert [f.name for f in efficiency_figures(found)] == ["efficiency-training", "efficiency-decoding"]
    assert not (Path(where) / "figures" / "efficiency-ndcg.svg").exists()


def test_few_rounds_and_an_interruption_are_said(tmp_path: Path) -> None:
    found, _ = write_efficiency(
        str(plant(tmp_path, finished=None, training=training(3), decoding=decoding(1)))
    )
    text = "\n".join(found.notes)
    assert "was interrupted" in text and "(75%)" in text and "(0%)" in text


def loaded(part: dict[str, Any], load: list[float | None]) -> dict[str, Any]:
    """A part whose last round was measured at such load averages."""
    part["rounds"][-1]["load"] = load
    return part


@pytest.mark.parametrize(
    ("load", "said"), [([0.5, 2.0], False), ([2.5, 0.1], True), ([0.1, 8.31], True), ([None, None], False)]
)
def test_an_overloaded_machine_is_said(load: list[float | None], said: bool) -> None:
    notes = "\n".join(parse(content(training=loaded(training(), load))).notes)
    assert ("overloaded while training" in notes) is said
    assert not said or f"{max(x for x in load if x):.1f} on 2 cores" in notes
    notes = "\n".join(parse(content(decoding=loaded(decoding(), load))).notes)
    assert ("overloaded while decoding" in notes) is said


def test_code_in_no_commit_is_said(tmp_path: Path) -> None:
    revision = "0123456789abcdef0123456789abcdef01234567"
    assert parse(content(git=revision)).notes == parse(content(git=None)).notes == ()
    write_efficiency(str(plant(tmp_path, git=f"{revision}+changes")))
    assert "uncommitted changes to revision 0123456789ab:" in (tmp_path / FOLDER / "table.md").read_text()


def test_a_run_is_set_against_the_contender_of_its_lora_dropout(tmp_path: Path) -> None:
    part = timed_objectives(bear={"lora_dropout": 0.05}, sdpo={"name": "bear", "lora_dropout": 0.0})
    plant(tmp_path, training=part)
    write_run(tmp_path / "runs" / "a", method="BEAR", changes={"model.lora_dropout": 0.0}, n=40)
    write_run(tmp_path / "runs" / "b", method="BEAR", changes={"model.lora_dropout": 0.05}, n=40)
    found = found_in(tmp_path)
    assert sorted(p.objective for p in found.points) == ["bear", "sdpo"]
    assert not any("other settings" in note for note in found.notes)


@pytest.mark.parametrize(
    ("machines", "words"), [(1, "CodeCarbon: RAPL."), (2, "CodeCarbon on 2 machines, added up; ")]
)
def test_how_many_machines_energy_is_of_is_said(machines: int, words: str) -> None:
    part = training() | {"energy_sources": ["RAPL"], "energy_machines": machines}
    assert words in "\n".join(parse(content(training=part)).facts)


def test_parts_that_were_not_asked_for_or_have_no_round_are_left_out() -> None:
    found = parse(content(training=training(0), decoding=None))
    assert found.training == () == found.decoding and efficiency_figures(found) == []
    assert markdown(found)[0] == "## What it costs"


def test_without_sft_seconds_are_drawn() -> None:
    part = training()
    del part["contenders"]["sft"]
    found = parse(content(training=part, decoding=None))
    assert "s/step" in efficiency_figures(found)[0].caption
    assert training_cells(found.training)[1][0][2] == "–"
    assert all("<svg" in svg for svg in inline(efficiency_figures(found)[0]))


def test_the_sweeps_report_has_the_section(storage: Path, tmp_path: Path) -> None:
    index = write_report(storage, tmp_path)
    page = index.read_text()
    assert '<a href="#efficiency">What it costs</a>' in page
    section = page[page.index('<h2 id="efficiency">') :]
    assert "1.50 [1.50, 1.50]" in section and "generate" in section
    assert re.search(r"<h2 id=\"cost\">", page)
    assert "## What it costs" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "tables" / "efficiency.csv").exists()
    assert (tmp_path / "tables" / "efficiency.tex").exists()
    assert (tmp_path / "figures" / "efficiency-ndcg.svg").exists()


def test_a_report_without_a_benchmark_has_no_such_section(report: Path) -> None:
    assert "What it costs" not in (report / "index.html").read_text()
    assert not (report / "tables" / "efficiency.csv").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 99}, "schema 99"),
        ({"training": {"rounds": [{}]}}, "efficiency.json is damaged"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_efficiency(str(plant(tmp_path, **changes)))


def test_a_storage_without_a_benchmark_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="bench objectives"):
        write_efficiency(str(tmp_path))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123456, "0.0123"), (1.0, "1.00"), (15.75, "15.8"), (123.4, "123"), (12345.0, "12,345"), (0.0, "0")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert figures(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.500 s"), (99.0, "99.0 s"), (600.0, "10.0 min"), (7200.0, "2.00 h")]
)
def test_durations_for_readers(value: float, text: str) -> None:
    assert duration(value) == text
