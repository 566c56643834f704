"""A few damaged inputs for each reader in every test run; `make fuzz` tries thousands.

Examples are the same in every run, so that a change is told from bad luck; `make fuzz SEED=1` tries others.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bearray.errors import DataError
from tests.fuzz.harness import attempt
from tests.fuzz.reader import Reader
from tests.fuzz.readers import READERS

EXAMPLES = 15
FEW = {
    "report": 6, "base-model": 4, "checkpoint": 6, "adapter": 6, "catalogue-cache": 6, "run": 4, "export": 4,
    "soft-tokens": 6, "histories": 8,
}  # fmt: skip
"""Readers that take longer."""
QUICK = [reader for reader in READERS if reader.name != "report-drawn"]
"""Drawing a figure takes seconds; `make fuzz` does it, and so do the report's own tests."""


@pytest.fixture(scope="module", params=QUICK, ids=lambda reader: reader.name)
def sample(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Reader, Path]]:
    folder = tmp_path_factory.mktemp("sample") / "good"
    folder.mkdir()
    request.param.make(folder)
    yield request.param, folder


@pytest.mark.filterwarnings("ignore")
def test_damage_is_read_or_refused(sample: tuple[Reader, Path]) -> None:
    reader, good = sample

    @settings(
        max_examples=FEW.get(reader.name, EXAMPLES),
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32))
    def one(number: int) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            outcome = attempt(reader, good, Path(scratch) / "now", random.Random(number))
        assert outcome.kind in ("read", "refused"), f"{outcome.damage}\n{outcome.detail}"

    one()


@pytest.mark.parametrize(
    ("read", "what"),
    [
        (lambda folder, rng: None, "read"),
        (lambda folder, rng: (_ for _ in ()).throw(DataError("no")), "refused"),
        (lambda folder, rng: (_ for _ in ()).throw(DataError(" ")), "defect"),
        (lambda folder, rng: {}["x"], "defect"),
        (lambda folder, rng: (_ for _ in ()).throw(AssertionError("a promise")), "defect"),
    ],
)
def test_outcomes(tmp_path: Path, read: object, what: str) -> None:
    reader = Reader("x", lambda folder: None, read, damage=lambda folder, rng: "")  # type: ignore[arg-type]
    (tmp_path / "sample").mkdir()
    assert attempt(reader, tmp_path / "sample", tmp_path / "now", random.Random(0)).kind == what


def test_a_reader_without_an_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.harness.PATIENCE_S", 0.1)

    def read(folder: Path, rng: random.Random) -> None:
        while True:
            try:
                rng.random()
            except Exception:  # a reader that takes everything for damage
                continue

    reader = Reader("x", lambda folder: None, read, damage=lambda folder, rng: "")
    (tmp_path / "sample").mkdir()
    outcome = attempt(reader, tmp_path / "sample", tmp_path / "now", random.Random(0))
    assert outcome.kind == "defect" and outcome.what.startswith("Hang")
