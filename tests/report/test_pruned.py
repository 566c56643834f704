"""PR@10 from the lists of exact search and of the run's own beam search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bearray.report import write_report
from bearray.report.collect import collect
from bearray.report.cost import build_costs
from bearray.report.overview import build_overview, overview_cells
from bearray.report.pruned import pruned_of
from bearray.report.tables import build_tables
from tests.report.storage import write_run
from tests.report.test_tables import raw


def counted(folder: Path) -> tuple[int, int]:
    """Case by case, from the files."""
    own, exact = raw(folder / "predictions"), raw(folder / "predictions_exact")
    beam = dict(zip(own["row"], own["rank"], strict=True))
    deserving = [row for row, rank in zip(exact["row"], exact["rank"], strict=True) if rank < 10]
    return sum(beam[row] >= 10 for row in deserving), len(deserving)


def only(folder: Path) -> Any:
    (run,) = collect(folder).runs
    return run


def test_it_counts_as_case_by_case(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", method="BEAR", hit=0.4, exact=True)
    lost, of = counted(folder)
    assert 0 < lost < of
    assert pruned_of(only(tmp_path), 10) == (lost, of)


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({"exact": False}, {}),
        ({"exact": True, "proven": 0.995}, {}),
        ({"exact": True}, {"decoding.length_penalty": 1.0}),
        ({"exact": True}, {"decoding.beam_width": 5}),
        ({"exact": True}, {"decoding.method": "diverse", "decoding.diverse_groups": 2}),
    ],
)
def test_lists_that_do_not_tell(tmp_path: Path, options: dict[str, Any], changes: dict[str, Any]) -> None:
    write_run(tmp_path / "run", method="BEAR", hit=0.4, changes=changes, **options)
    assert pruned_of(only(tmp_path), 10) is None


def test_other_test_cases_do_not_tell(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", method="BEAR", hit=0.4, exact=True)
    for shard in sorted((folder / "predictions_exact").glob("*.parquet")):
        frame = pd.read_parquet(shard)
        frame["row"] += 1
        frame.to_parquet(shard)
    assert pruned_of(only(tmp_path), 10) is None


def test_the_overview_sums_over_seeds_and_needs_no_analysis(tmp_path: Path) -> None:
    storage = tmp_path / "sweep"
    folders = [
        write_run(storage / f"bear-{seed}", method="BEAR", hit=0.4, exact=True, chosen=True, seed=seed,
                  changes={"train.seed": seed})
        for seed in (1, 2)
    ]  # fmt: skip
    counts = [counted(folder) for folder in folders]
    lost, of = (sum(values) for values in zip(*counts, strict=True))
    runs = collect(storage).runs
    overview = build_overview(build_tables(runs), build_costs(runs, [])["demo", "local:tiny"], [])
    assert overview is not None and overview.rows[0].pruned == (lost, of)
    header, (line,) = overview_cells(overview)
    assert line[header.index("PR@10")] == f"{lost / of:.1%}, {lost}/{of}"
    page = write_report(storage, tmp_path / "out")
    csv = pd.read_csv(page.parent / "tables" / "overview.csv")
    assert csv[["pruned", "deserving"]].to_numpy().tolist() == [[lost, of]]
