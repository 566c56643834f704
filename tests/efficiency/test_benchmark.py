"""A whole benchmark in this process: files, continuation, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bearray import cli
from bearray.config import override
from bearray.efficiency import benchmark
from bearray.efficiency.config import EfficiencyConfig
from bearray.errors import ConfigError, ResumeError
from bearray.tuning.timing import run_benchmark


@pytest.fixture(scope="module")
def settings(make_run: Any, demo_dir: Path, micro_base: Path, tmp_path_factory: Any) -> dict[str, Any]:
    run = override(make_run(), {"data.path": "", "model.base": "llama-3.2-3b", "train.engine": "auto"})
    return {
        "data_dir": str(demo_dir),
        "storage": str(tmp_path_factory.mktemp("bench")),
        "base_model": str(micro_base),
        "objectives": ("sft", "bear", "bear:form=hinge"),
        "decoders": ("beam", "greedy"),
        "rounds": 2,
        "steps": 1,
        "warmup_steps": 1,
        "users": 3,
        "local": True,
        "run": run,
    }


@pytest.fixture(scope="module")
def measured(settings: dict[str, Any]) -> Path:
    return Path(run_benchmark(EfficiencyConfig(**settings)))


def rounds_of(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in sorted((folder / "rounds").iterdir())}


def test_everything_is_written(measured: Path) -> None:
    content = json.loads((measured / "efficiency.json").read_text())
    assert content["finished"] and content["schema"] == 1
    assert [r["round"] for r in content["training"]["rounds"]] == [0, 1]
    for record in content["training"]["rounds"]:
        assert set(record["turns"]) == {"sft", "bear", "bear:form=hinge"}
        assert all(s > 0 for t in record["turns"].values() for s in t["seconds"])
    assert content["training"]["contenders"]["bear:form=hinge"]["form"] == "hinge"
    assert content["decoding"]["passes"]["beam"]["forward"][0] > 0
    assert content["training"]["machine"]["versions"]["torch"]
    for name in ("table.md", "table.csv", "table.tex", "figures/efficiency-training.svg"):
        assert (measured / name).stat().st_size > 0
    assert "bear:form=hinge" in (measured / "table.md").read_text()


def test_a_rerun_measures_nothing_and_more_rounds_are_added(
    measured: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rounds_of(measured)
    with monkeypatch.context() as patch:
        for name in ("measure_training", "measure_decoding"):
            patch.setattr(benchmark, name, lambda *a, **k: pytest.fail("measured again"))
        run_benchmark(EfficiencyConfig(**settings))
    assert rounds_of(measured) == before
    run_benchmark(EfficiencyConfig(**settings | {"rounds": 3, "objectives": settings["objectives"]}))
    after = rounds_of(measured)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"training-0002.json", "decoding-0002.json"}


def test_an_interrupted_benchmark_is_kept_and_continued(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bearray.efficiency.results import PartFolder

    config = EfficiencyConfig(**settings | {"storage": str(tmp_path), "decoders": ("none",), "rounds": 3})
    add = PartFolder.add

    def interrupted(self: Any, record: Any) -> None:
        if record["round"] == 1:
            raise KeyboardInterrupt
        add(self, record)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PartFolder, "add", interrupted)
        run_benchmark(config)
    folder = tmp_path / "efficiency"
    content = json.loads((folder / "efficiency.json").read_text())
    assert content["finished"] is None and len(content["training"]["rounds"]) == 1
    first = (folder / "rounds" / "training-0000.json").read_text()
    run_benchmark(config)
    assert (folder / "rounds" / "training-0000.json").read_text() == first
    assert len(json.loads((folder / "efficiency.json").read_text())["training"]["rounds"]) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 2}, "steps: 1 -> 2"),
        ({"objectives": ("sft", "bear")}, "objectives: .*hinge"),
        ({"seed": 5}, "seed: 0 -> 5"),
    ],
)
def test_other_settings_are_refused_by_name(
    measured: Path, settings: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ResumeError, match=message):
        benchmark.check(EfficiencyConfig(**settings | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_dir": ""}, "give --data-dir"),
        ({"storage": ""}, "give --storage"),
        ({"objectives": ("bert",)}, "there is no 'bert'"),
        ({"users": 1000}, "users is 1000, but there are 11 test windows"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_made(
    settings: dict[str, Any], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    storage = tmp_path / "new"
    with pytest.raises(ConfigError, match=message):
        benchmark.check(EfficiencyConfig(**settings | {"storage": str(storage)} | changes))
    assert not storage.exists()


def test_an_objective_that_does_not_fit_the_data_is_an_error_by_name_and_a_note_among_all(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    run = override(settings["run"], {"objective.negatives": 10_000})
    changes = {"storage": str(tmp_path), "run": run, "decoders": ("none",)}
    named = EfficiencyConfig(**settings | changes | {"objectives": ("sft", "sdpo")})
    with pytest.raises(ConfigError, match="objective 'sdpo' wants 10000"):
        benchmark.prepare(benchmark.check(named), print)
    said: list[str] = []
    _, plans = benchmark.prepare(
        benchmark.check(EfficiencyConfig(**settings | changes | {"objectives": ("all",)})), said.append
    )
    assert "sdpo" not in plans["training"]["contenders"] and "sft" in plans["training"]["contenders"]
    assert any(line.startswith("sdpo is left out: objective 'sdpo' wants 10000") for line in said)


def test_an_objective_without_its_sft_is_said_to_have_no_ratio(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    changes = {"storage": str(tmp_path), "decoders": ("none",)}
    objectives = ("sft", "bear:lora_dropout=0.5", "bear")
    said: list[str] = []
    _, plans = benchmark.prepare(
        benchmark.check(EfficiencyConfig(**settings | changes | {"objectives": objectives})), said.append
    )
    (line,) = [line for line in said if "no ratio" in line]
    assert line.startswith("bear:lora_dropout=0.5 has") and "sft:lora_dropout=0.5 among" in line
    rates = [plans["training"]["contenders"][label]["lora_dropout"] for label in objectives]
    assert rates == [0.0, 0.5, 0.0]


def test_the_command_line_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = tmp_path / "storage"
    code = cli.run(["bench", "objectives", "--data-dir", "/no/such/folder", "--storage", str(storage)])
    assert code == 2 and "/no/such/folder does not exist" in capsys.readouterr().err
    assert not storage.exists()
