"""benchmarks/scale.py: docs/scale.md and the package's measured.json are what it makes."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bearray.planning.costs import training_flops
from bearray.planning.text import duration

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "scale.py"


def _load(name: str) -> Any:
    """A script of benchmarks/, which is no package: its folder is on the path while it is imported."""
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPT.parent))


scale, costs = _load("scale"), _load("scale_costs")
MEASURED = costs.load()


def test_the_page_is_what_the_script_makes() -> None:
    page = scale.PAGE.read_text(encoding="utf-8")
    wanted = scale.filled(page, scale.tables(MEASURED))
    assert page == wanted, "docs/scale.md is out of date: run python benchmarks/scale.py"


def test_a_changed_page_is_noticed(tmp_path: Path) -> None:
    files = ("docs/scale.md", "bearray/planning/measured.json")
    for name in ("benchmarks/scale.py", "benchmarks/scale_costs.py", *files):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "benchmarks" / "results", tmp_path / "benchmarks" / "results")

    def run(*options: str) -> int:
        command = [sys.executable, str(tmp_path / "benchmarks" / "scale.py"), *options]
        return subprocess.run(command, capture_output=True, check=False).returncode

    assert run("--check") == 0
    for name, old, new in zip(files, ("days", "0."), ("weeks", "1."), strict=True):
        file = tmp_path / name
        file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
        assert run("--check") == 1
        assert run() == 0
        assert file.read_text(encoding="utf-8") == (ROOT / name).read_text(encoding="utf-8")
    assert run("--check") == 0


@pytest.mark.parametrize("change", ["drop", "rename"])
def test_a_table_without_a_place_is_an_error(change: str) -> None:
    page = scale.PAGE.read_text(encoding="utf-8")
    wrong = page.replace("<!-- table: trie -->", "" if change == "drop" else "<!-- table: tries -->")
    with pytest.raises(ValueError, match="tables"):
        scale.filled(wrong, scale.tables(MEASURED))


def test_new_measurements_change_the_tables(tmp_path: Path) -> None:
    """Which of them shows where the numbers come from."""
    folder = tmp_path / "results"
    shutil.copytree(ROOT / "benchmarks" / "results", folder)
    before = scale.tables(MEASURED, folder)
    file = folder / "decoding-cpu.json"
    decoding = json.loads(file.read_text(encoding="utf-8"))
    decoding["times_the_prefill"]["full"] *= 2
    file.write_text(json.dumps(decoding), encoding="utf-8")
    after = scale.tables(costs.load(folder), folder)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"measured", "flops", "evaluation"}


MODEL = costs.MODELS[0]


def test_an_epoch_by_hand() -> None:
    """1,000 windows in batches of 100 on four cards: 10 steps of 25 windows each."""
    work = MEASURED.work
    step = 25 * training_flops(MODEL, work, costs.MICRO_BATCH) / (costs.H100.peak * 0.40)
    gradients = 2 * 4 * costs.adapter(MODEL) / 10e9
    seconds = costs.epoch_seconds(MODEL, work, 4, windows=1_000, batch=100)
    assert seconds == pytest.approx(10 * (step + gradients + 0.05), rel=1e-12)
    alone = costs.epoch_seconds(MODEL, work, 1, windows=1_000, batch=100)
    assert alone == pytest.approx(10 * (4 * step + 0.05), rel=1e-12)


def test_an_evaluation_by_hand() -> None:
    user = MEASURED.ratio["full"] * MODEL.forward(MEASURED.prompt_tokens, MEASURED.prompt_tokens / 2)
    seconds = costs.evaluation_seconds(MODEL, MEASURED.work, 8, users=5_000, normalize="full")
    assert seconds == pytest.approx(60 + 3 * 256 * user / (costs.H100.peak * 0.25), rel=1e-12)


def test_gpus_beyond_the_shards_do_not_help() -> None:
    def seconds(gpus: int) -> float:
        return float(costs.evaluation_seconds(MODEL, MEASURED.work, gpus, users=5_000, normalize="trie"))

    assert seconds(1) > seconds(8) > seconds(20) == seconds(64)


def test_the_start_of_the_prompts_is_computed_once_a_micro_batch() -> None:
    work = replace(MEASURED, prompt_tokens=100.0, shared_tokens=40.0, title_tokens=9.0).work
    assert work.window_tokens(1) == 110 and work.window_tokens(4) == 80


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.4, "4 s"),
        (119, "119 s"),
        (150, "2.5 min"),
        (3_600, "60 min"),
        (7_200, "2.0 h"),
        (864_000, "10 days"),
    ],
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text
