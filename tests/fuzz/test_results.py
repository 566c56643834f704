"""What docs/security.md says of the last fuzzing stands in benchmarks/results/fuzz.json."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.__main__ import keep
from tests.fuzz.readers import READERS

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "fuzz.json"
HEADER = "| reader | inputs | read | refused | defects |"
AGAIN = "python -m tests.fuzz --reader NAME --inputs 400 --json benchmarks/results/fuzz.json"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(RESULTS.read_text())["readers"]
    return found


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs" / "security.md").read_text()


def test_the_pages_table_is_the_file(rows: list[dict[str, Any]], page: str) -> None:
    (table,) = page.split(HEADER)[1:]  # there is one
    lines = table.partition("\n\n")[0].splitlines()[2:]
    told = [[cell.strip().replace(",", "") for cell in line.strip("|").split("|")] for line in lines]
    keys = ("inputs", "read", "refused", "defect")
    wanted = [[row["reader"], *(str(row[k]) for k in keys)] for row in rows]
    assert told == [*wanted, ["all", *(str(sum(row[k] for row in rows)) for k in keys)]]


def test_readers_that_are_not_in_the_file_are_named(rows: list[dict[str, Any]], page: str) -> None:
    counted = [row["reader"] for row in rows]
    assert counted == [reader.name for reader in READERS if reader.name in counted]
    lacking = page.partition("Not in the file yet:")[2].partition("\n\n")[0]
    assert re.findall("`(.*?)`", lacking) == [r.name for r in READERS if r.name not in counted], AGAIN
    assert all(row["inputs"] == row["read"] + row["refused"] + row["defect"] for row in rows)
    assert all(re.fullmatch("[0-9a-f]{40}", row["git"]) for row in rows)  # without uncommitted changes
    assert f"damaged inputs for {len(READERS)} readers" in page


def test_a_readers_counts_take_the_place_of_its_old_ones(tmp_path: Path) -> None:
    file = tmp_path / "fuzz.json"
    for name, inputs in (("trie", 1), ("config", 2), ("trie", 3)):
        keep(file, {"reader": name, "inputs": inputs})
    found = [(row["reader"], row["inputs"]) for row in json.loads(file.read_text())["readers"]]
    assert found == [("config", 2), ("trie", 3)]
