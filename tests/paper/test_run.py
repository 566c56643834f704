"""The order of work, what a failure stops, and what comes back at the end; steps here are plain functions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bearray.config import override, to_dict
from bearray.data import open_dataset
from bearray.efficiency.config import EfficiencyConfig
from bearray.efficiency.variants import objective_variants
from bearray.errors import BearrayError, ConfigError, MissingFileError, ResumeError, StorageError
from bearray.paper import run as paper_run
from bearray.paper import steps as paper_steps
from bearray.paper.config import PaperConfig, defaults
from bearray.paper.cost import costs
from bearray.paper.data import prepare_data
from bearray.paper.parts import Part, needs
from bearray.paper.run import run_paper
from bearray.paper.steps import Step, steps
from bearray.paper.sweeps import part_storage
from bearray.tuning.config import SMOKE

PART = Part("demo", "bigrec", "local:tiny")


class Work:
    """A step that takes note of being done."""

    def __init__(self, name: str, error: Exception | None = None, *, done: bool = False) -> None:
        self.name, self.error, self.calls, self.there = name, error, 0, done

    def do(self) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error
        self.there = True

    def step(self) -> Step:
        return Step(title=self.name, part=PART, runs=1, done=lambda: int(self.there), do=self.do)


@pytest.fixture
def smoke(tmp_path: Path) -> PaperConfig:
    return replace(defaults().at_scale("smoke", SMOKE), storage=str(tmp_path / "paper"))


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, smoke: PaperConfig, demo_dir: Path
) -> Callable[..., tuple[list[Path], Path | BearrayError]]:
    def call(*work: Work, **changes: Any) -> tuple[list[Path], Path | BearrayError]:
        written: list[Path] = []

        def write(config: PaperConfig, *, pdf: bool = True) -> Path:
            written.append(Path(config.storage) / "paper" / ("index.html" if pdf else "without-pdf.html"))
            return written[-1]

        monkeypatch.setattr(paper_run, "steps", lambda config, wanted: [w.step() for w in work])
        monkeypatch.setattr(paper_run, "prepare_data", lambda config: {"demo": open_dataset(demo_dir)})
        monkeypatch.setattr(paper_run, "write_document", write)
        try:
            return written, run_paper(replace(smoke, **changes))
        except BearrayError as error:
            return written, error

    return call


def test_steps_that_are_done_are_not_done_again(run: Any) -> None:
    first, second = Work("first", done=True), Work("second")
    written, document = run(first, second)
    assert (first.calls, second.calls) == (0, 1)
    assert document == written[-1]
    assert [path.name for path in written] == ["without-pdf.html", "index.html"]  # after the step; at the end
    record = json.loads((document.parents[1] / "paper.json").read_text())
    assert record["config"]["datasets"] == ["demo"] and record["data"]["demo"]["stats"]["users"] > 0


def test_a_failure_stops_nothing_else_and_is_told_at_the_end(run: Any) -> None:
    first, second = Work("first", ConfigError("not so")), Work("second")
    written, error = run(first, second)
    assert second.calls == 1 and len(written) == 3
    assert isinstance(error, BearrayError) and "first: not so" in str(error) and "second" not in str(error)


def test_a_full_storage_stops_everything(run: Any) -> None:
    first, second = Work("first", StorageError("no space left")), Work("second")
    written, error = run(first, second)
    assert isinstance(error, StorageError) and second.calls == 0 and not written


def test_a_dry_run_does_nothing(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    first = Work("first")
    written, storage = run(first, dry_run=True)
    assert first.calls == 0 and not written
    assert "first: 1 of 1 to do" in capsys.readouterr().out
    assert not (storage / "paper.json").exists()


def test_the_document_alone_is_of_what_was_asked_for_before(
    run: Any, smoke: PaperConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[PaperConfig] = []
    with pytest.raises(MissingFileError, match=r"paper\.json"):
        run_paper(replace(smoke, document_only=True))
    run(seeds=(7, 8), table=(2,))
    monkeypatch.setattr(paper_run, "write_document", lambda config: asked.append(config) or Path("x"))
    run_paper(replace(defaults(), storage=smoke.storage, document_only=True))
    run_paper(replace(defaults(), storage=smoke.storage, document_only=True, figure=(8,)))
    assert [(c.seeds, c.table, c.figure) for c in asked] == [((7, 8), (2,), ()), ((7, 8), (), (8,))]
    assert asked[0].datasets == ("demo",)


def test_changed_settings_are_refused_before_the_first_step(
    smoke: PaperConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper_run, "_work", lambda *_: pytest.fail("a step was begun"))
    data = prepare_data(smoke)["demo"]
    last = [s for s in steps(smoke, needs(smoke)) if s.trains and s.trains.test and not s.part.sampled][-1]
    assert last.part.backbone == "allmrec"
    before = {"sweep": to_dict(last.trains), "dataset": data.name, "data_hash": data.content_hash}
    part_storage(smoke, last.part).write_json("sweep.json", before)
    with pytest.raises(ResumeError, match=r"sweep\.run\.train\.epochs: 2 -> 3"):
        run_paper(replace(smoke, run=override(smoke.run, {"train.epochs": 3})))


def test_methods_are_timed_with_the_settings_of_their_runs(
    smoke: PaperConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(smoke, methods=("bear", "grpo", "sft"), figure=(9,), scale="cpu")
    asked: list[EfficiencyConfig] = []
    monkeypatch.setattr(paper_steps, "run_benchmark", asked.append)
    (step,) = [s for s in steps(config, needs(config)) if s.title.startswith("time")]
    step.do()
    assert [each.objectives for each in asked] == [("sft", "bear", "grpo:rollouts=8")]
    assert objective_variants(asked[0].objectives, asked[0].run.objective)["grpo:rollouts=8"].rollouts == 8


def test_a_bucket_is_refused(smoke: PaperConfig) -> None:
    with pytest.raises(ConfigError, match="needs a folder"):
        run_paper(replace(smoke, storage="s3://bucket/paper"))


def plant(config: PaperConfig, step: Step, method: str, seed: int, *, chosen: bool = True) -> None:
    """A run of a step, as one that was tested."""
    folder = Path(config.storage) / step.part.folder / "runs" / f"{method.lower()}-{seed}"
    folder.mkdir(parents=True)
    run = to_dict(config.run) | {"train": to_dict(config.run)["train"] | {"seed": seed}}
    about = {"method": method, "run": run, "dataset": "demo", "base_model": "local:tiny", "role": "method"}
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "result.json").write_text(json.dumps({"status": "finished", "chosen": chosen, "test": {}}))


def test_the_plan_counts_what_is_there(smoke: PaperConfig) -> None:
    config = replace(smoke, table=(2,))
    prepare_data(config)
    (step, *rest) = steps(config, needs(config))
    assert step.runs == 9 and step.done() == 0 and {s.title for s in rest} >= {"train and test sasrec"}
    for method, seed, chosen in (("SFT", 42, True), ("MSL", 42, False), ("IGD", 5, True)):
        plant(config, step, method, seed, chosen=chosen)
    assert step.done() == 1  # one is not chosen, one of another seed
    (cost,) = costs(config, [step])
    assert cost.left == 8


def test_another_seed_has_no_search_of_its_own(smoke: PaperConfig) -> None:
    """Trials are with the first seed: what a second one takes does not depend on their number."""

    def first_step(trials: int, seeds: tuple[int, ...]) -> Step:
        config = replace(smoke, table=(2,), methods=("sft", "bear"), trials=trials, seeds=seeds)
        return next(steps(config, needs(config)))

    def hours(trials: int, seeds: tuple[int, ...]) -> float:
        (cost,) = costs(smoke, [first_step(trials, seeds)])
        return 0.0 if cost.hours is None else cost.hours.seconds

    prepare_data(smoke)
    one, searched = hours(1, (42,)), hours(9, (42,))
    assert searched > one
    for method in ("SFT", "BEAR"):
        plant(smoke, first_step(1, (42,)), method, 42)
    assert hours(1, (42,)) == hours(9, (42,)) == 0
    assert 0 < hours(9, (42, 43)) == hours(1, (42, 43)) <= one
