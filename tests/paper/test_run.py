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
from bearray.errors import BearrayError, ConfigError, DataError, MissingFileError, ResumeError, StorageError
from bearray.paper import run as paper_run
from bearray.paper.config import PaperConfig, defaults
from bearray.paper.data import prepare_data
from bearray.paper.parts import needs
from bearray.paper.run import run_paper
from bearray.paper.steps import Step, steps
from bearray.paper.sweeps import part_storage
from tests.paper.planted import PART


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
        return Step(title=self.name, part=PART, runs=lambda: 1, done=lambda: int(self.there), do=self.do)


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
        monkeypatch.setattr(paper_run, "DOCUMENT_SECONDS", 0.0)
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


def test_a_bucket_is_refused(smoke: PaperConfig) -> None:
    with pytest.raises(ConfigError, match="needs a folder"):
        run_paper(replace(smoke, storage="s3://bucket/paper"))


def test_another_number_of_sampled_users_is_refused(smoke: PaperConfig) -> None:
    config = replace(smoke, table=(5,))
    prepare_data(config)
    prepare_data(config)
    with pytest.raises(ResumeError, match=r"sample of 100 users, and --sample-users is 90"):
        prepare_data(replace(config, sample_users=90))
    with pytest.raises(ResumeError, match=r"sample of 100 users"):
        prepare_data(replace(config, sample_users=10_000))


def test_the_document_alone_takes_nothing_but_tables_and_figures(run: Any, smoke: PaperConfig) -> None:
    run(seeds=(7, 8), datasets=("demo",))
    for changes, named in (
        ({"datasets": ("office",), "sampled": ()}, r"datasets: \['demo'\] -> \['office'\]"),
        ({"seeds": (7,)}, r"seeds: \[7, 8\] -> \[7\]"),
        ({"methods": ("sft", "bear")}, r"methods: "),
        ({"run": override(defaults().run, {"train.epochs": 3})}, r"not at all: run\.train\.epochs: 2 -> 3$"),
    ):
        with pytest.raises(ConfigError, match=named):
            run_paper(replace(defaults(), storage=smoke.storage, document_only=True, **changes))
    written, document = run(seeds=(7, 8), document_only=True, figure=(3,))
    assert written == [document]


@pytest.mark.parametrize(("record", "told"), [({"data": {}}, "'config'"), ({"config": {}}, "'data'")])
@pytest.mark.parametrize("shown", [True, False])
def test_a_damaged_record_is_named(run: Any, smoke: PaperConfig, record: Any, told: str, shown: bool) -> None:
    Path(smoke.storage).mkdir()
    (Path(smoke.storage) / "paper.json").write_text(json.dumps(record))
    _, error = run(document_only=shown)
    assert isinstance(error, DataError) and f"paper.json: has no {told}" in str(error)
