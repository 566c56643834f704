"""The order of work, what a failure stops, and what comes back at the end; steps here are plain functions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bearray.config import override, to_dict
from bearray.data import open_dataset
from bearray.efficiency.config import EfficiencyConfig
from bearray.efficiency.variants import objective_variants
from bearray.errors import BearrayError, ConfigError, DataError, MissingFileError, ResumeError, StorageError
from bearray.paper import run as paper_run
from bearray.paper.config import PaperConfig, defaults
from bearray.paper.cost import costs, lines
from bearray.paper.data import prepare_data
from bearray.paper.parts import Part, needs
from bearray.paper.run import run_paper
from bearray.paper.steps import Step, d3, sensitivity, steps, timing
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
        return Step(title=self.name, part=PART, runs=lambda: 1, done=lambda: int(self.there), do=self.do)


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


def test_methods_are_timed_with_the_settings_of_their_runs(
    smoke: PaperConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(smoke, methods=("bear", "grpo", "sft"), figure=(9,), scale="cpu")
    asked: list[EfficiencyConfig] = []
    monkeypatch.setattr(timing, "run_benchmark", asked.append)
    (step,) = [s for s in steps(config, needs(config)) if s.title.startswith("time")]
    step.do()
    assert [each.objectives for each in asked] == [("sft", "bear", "grpo:rollouts=8")]
    assert objective_variants(asked[0].objectives, asked[0].run)["grpo:rollouts=8"].config.rollouts == 8


def test_a_bucket_is_refused(smoke: PaperConfig) -> None:
    with pytest.raises(ConfigError, match="needs a folder"):
        run_paper(replace(smoke, storage="s3://bucket/paper"))


def plant(config: PaperConfig, step: Step, method: str, seed: int, *, chosen: bool = True) -> Path:
    """A run of a step, as one that was tested."""
    result = {"status": "finished", "chosen": chosen, "test": {}}
    return write_folder(config, f"{step.part.folder}/runs/{method.lower()}-{seed}", method, result, seed=seed)


def write_folder(
    config: PaperConfig, place: str, method: str, result: dict[str, Any], *, seed: int = 42, **changes: Any
) -> Path:
    """A run folder of the storage; `changes` are of its objective."""
    folder = Path(config.storage) / place
    folder.mkdir(parents=True, exist_ok=True)
    own = {"train.seed": seed, **{f"objective.{name}": value for name, value in changes.items()}}
    run = to_dict(override(config.run, own))
    about = {"method": method, "run": run, "dataset": "demo", "base_model": "local:tiny", "role": "method"}
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_the_plan_counts_what_is_there(smoke: PaperConfig) -> None:
    config = replace(smoke, table=(2,))
    prepare_data(config)
    (step, *rest) = steps(config, needs(config))
    assert step.runs() == 9 and step.done() == 0 and {s.title for s in rest} >= {"train and test sasrec"}
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


def figure_8(config: PaperConfig) -> Step:
    return next(s for s in steps(config, needs(config)) if "lambda and xi" in s.title)


def test_what_figure_8_lacks_is_known_once_bear_is_chosen(smoke: PaperConfig) -> None:
    """Values that the search chose are no points of the grid, as a rule; one may be."""
    config = replace(smoke, figure=(8,), lam=(0.25, 2.0), xi=(0.5, 1.0))
    step, part = figure_8(config), f"{PART.folder}/runs/bear-42"
    assert (step.runs(), step.done()) == (4, 0)
    assert step.trains is not None and len(step.trains.methods) == 4
    tested = {"status": "finished", "chosen": True, "test": {}}
    write_folder(config, part, "BEAR", tested, lam=0.7, xi=1.3)
    assert (step.runs(), step.done()) == (4, 0)
    write_folder(config, part, "BEAR", tested, lam=0.7, xi=1.0)
    assert step.runs() == 3


def test_a_point_of_figure_8_that_failed_is_trained_again(
    smoke: PaperConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(smoke, figure=(8,), lam=(0.25, 2.0), xi=(0.5,))
    write_folder(
        config, f"{PART.folder}/runs/bear-42", "BEAR", {"status": "finished", "chosen": True, "test": {}},
        lam=0.7, xi=1.3,
    )  # fmt: skip
    points = {"lam0": (0.25, 1.3), "lam1": (2.0, 1.3), "xi0": (0.7, 0.5)}

    def varied(label: str, status: str, *, seed: int = 42) -> None:
        place = f"{PART.folder}/sensitivity/runs/{label}-{seed}"
        lam, xi = points[label]
        write_folder(config, place, label.upper(), {"status": status}, seed=seed, lam=lam, xi=xi)

    for label in points:
        varied(label, "finished" if label != "lam1" else "failed")
    varied("lam1", "finished", seed=7)
    step = figure_8(config)
    assert (step.runs(), step.done()) == (3, 2)
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(sensitivity, "trained_run", lambda *_: None)
    monkeypatch.setattr(sensitivity, "run_sweep", lambda sweep: ran.append(sweep.method_settings))
    step.do()
    assert [tuple(float(s.partition("=")[2]) for s in ran[0][i : i + 2]) for i in (0, 2)] == [
        (0.25, 1.3), (2.0, 1.3),
    ]  # fmt: skip
    varied("lam1", "finished")
    assert step.done() == 3


def test_another_grid_of_figure_8_is_not_taken_for_done(smoke: PaperConfig) -> None:
    config = replace(smoke, figure=(8,), lam=(0.25, 2.0), xi=(0.5,))
    prepare_data(config)
    write_folder(
        config, f"{PART.folder}/runs/bear-42", "BEAR", {"status": "finished", "chosen": True, "test": {}},
        lam=0.7, xi=1.3,
    )  # fmt: skip
    before, data = figure_8(config).trains, prepare_data(config)["demo"]
    content = {"sweep": to_dict(before), "dataset": data.name, "data_hash": data.content_hash}
    part_storage(config, PART).child("sensitivity").write_json("sweep.json", content)
    for label, (lam, xi) in {"lam0": (0.25, 1.3), "lam1": (2.0, 1.3), "xi0": (0.7, 0.5)}.items():
        place = f"{PART.folder}/sensitivity/runs/{label}"
        write_folder(config, place, label.upper(), {"status": "finished"}, lam=lam, xi=xi)
    fewer, more, other = (replace(config, lam=lam) for lam in ((2.0,), (0.25, 2.0, 4.0), (0.25, 3.0)))
    for asked, runs, done in ((config, 3, 3), (fewer, 2, 2), (more, 4, 3), (other, 3, 2)):
        step = figure_8(asked)
        assert (step.runs(), step.done()) == (runs, done)
        if asked is other:
            with pytest.raises(ResumeError, match=r"other --lam or --xi: lam1:objective\.lam=2\.0"):
                step.check()
        else:
            step.check()


def only(config: PaperConfig, words: str) -> Step:
    return next(s for s in steps(config, needs(config)) if words in s.title)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"pruning_windows": None}, r"pruning_windows: \d+ -> 60"),
        ({"pruning_windows": 30}, r"pruning_windows: \d+ -> 30"),
        ({"pruning_budget": 9}, r"pruning_budget: None -> 9"),
    ],
)
def test_prunings_measured_otherwise_are_refused(
    smoke: PaperConfig, changes: dict[str, Any], message: str | None
) -> None:
    step = only(replace(smoke, figure=(3,)), "prunes")
    step.check()
    folder = plant(smoke, step, "SFT", 42) / "pruning"
    folder.mkdir()
    (folder / "manifest.json").write_text(
        json.dumps({"rows": smoke.pruning_windows, "of": 60, "node_budget": None})
    )
    step = only(replace(smoke, figure=(3,), **changes), "prunes")
    if message is None:
        return step.check()
    with pytest.raises(ResumeError, match=message):
        step.check()


@pytest.mark.parametrize(
    ("ended", "changes", "message"),
    [
        (True, {}, None),
        (False, {"d3_alpha": (0.5, 0.9, 0.7)}, None),
        (True, {"d3_alpha": (0.5, 0.9, 0.7)}, r"0\.5, 0\.9 and .* with d3_alpha 0\.5, 0\.9, 0\.7"),
        (False, {"d3_alpha": (0.5,)}, r"repeat the earlier --d3-alpha"),
        (True, {"d3_scores": "sasrec"}, r"d3_scores popularity, and .* d3_scores sasrec"),
    ],
)  # fmt: skip
def test_d3_decoded_otherwise_is_refused(
    smoke: PaperConfig, ended: bool, changes: dict[str, Any], message: str | None
) -> None:
    config = replace(smoke, table=(2,), d3_alpha=(0.5, 0.9))
    home = part_storage(config, PART).child("decoded")
    for alpha in config.d3_alpha:
        made = {"method": "d3", "d3_alpha": alpha, "d3_scores": "popularity"}
        home.write_json(f"valid/sft-{alpha}/manifest.json", {"decoding": made})
    if ended:
        home.write_json("d3-42/result.json", {"status": "finished"})
    step = only(replace(config, **changes), "D3")
    if message is None:
        return step.check()
    with pytest.raises(ResumeError, match=message):
        step.check()


def test_d3_asks_the_sasrec_of_the_row(smoke: PaperConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is told otherwise; at the paper's epochs nothing is named, as in earlier versions."""
    asked: list[Any] = []
    monkeypatch.setattr(d3, "connect", lambda: None)
    monkeypatch.setattr(d3, "trained_run", lambda *_: SimpleNamespace(name="sft"))
    monkeypatch.setattr(d3, "choose_decoding", lambda run, options, *_, **__: options[0])
    monkeypatch.setattr(d3, "redecoded", lambda run, changes, *_, **__: asked.append(changes))
    config = replace(smoke, table=(2,), d3_scores="sasrec", baseline_epochs=20)
    plain = {"decoding.method": "d3", "decoding.d3_scores": "sasrec", "decoding.d3_alpha": 0.9}
    for changes, epochs in (
        ({}, 20), ({"d3_sasrec_epochs": 5}, 5), ({"d3_sasrec_epochs": 200}, None),
        ({"baseline_epochs": None}, None),
    ):  # fmt: skip
        only(replace(config, **changes), "D3").do()
        assert asked.pop() == plain | ({} if epochs is None else {"decoding.d3_sasrec_epochs": epochs})
    made = {"method": "d3", "d3_alpha": 0.9, "d3_scores": "sasrec"}  # by a version without the setting
    part_storage(config, PART).write_json("decoded/valid/sft-0/manifest.json", {"decoding": made})
    only(replace(config, d3_sasrec_epochs=200), "D3").check()
    with pytest.raises(ResumeError, match=r"sasrec of 200 epochs, and .* sasrec of 20 epochs"):
        only(config, "D3").check()


def test_more_rounds_or_methods_are_timed_and_fewer_are_said(
    smoke: PaperConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(smoke, figure=(9,), methods=("sft", "bear"), timing_rounds=2)
    home = part_storage(config, PART).child("efficiency")
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(timing, "run_benchmark", lambda each: asked.append(each.objectives))

    def timed(*objectives: str, rounds: int, finished: str | None = "now") -> None:
        training = {"rounds": [{}] * rounds}
        content = {"settings": {"objectives": objectives}, "finished": finished, "training": training}
        home.write_json("efficiency.json", content)
        home.write_json("rounds/training-0000.json", {})

    def done(**changes: Any) -> int:
        return only(replace(config, **changes), "time").done()

    assert done() == 0
    timed("sft", "bear", rounds=2, finished=None)
    assert done() == 0
    timed("sft", "bear", rounds=2)
    assert (done(), done(timing_rounds=1), done(timing_rounds=3), done(methods=("sft", "msl", "bear"))) == (
        2, 2, 0, 2,
    )  # fmt: skip
    only(replace(config, timing_rounds=1), "time").check()
    assert "has 2 rounds; they all count, though --timing-rounds asks for 1" in capsys.readouterr().out
    only(replace(config, timing_rounds=3), "time").do()
    assert asked == [("sft", "bear")] and home.exists("rounds/training-0000.json")
    only(replace(config, methods=("sft", "msl", "bear")), "time").do()
    assert asked[1:] == [("sft", "bear", "msl")] and not home.exists("efficiency.json")
    assert not home.exists("rounds/training-0000.json")


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


def test_figure_7_alone_has_the_price_of_sft(smoke: PaperConfig) -> None:
    """The preference methods begin from SFT's model, so a sweep trains and tests it first."""
    config = replace(smoke, figure=(7,))
    prepare_data(config)
    step = next(steps(config, needs(config)))
    assert step.methods == {"sdpo", "sdpo_bear"}

    def price() -> float:
        (cost,) = costs(config, [step])
        assert cost.hours is not None
        return cost.hours.seconds

    alone = price()
    plant(config, step, "SFT", 42)
    assert price() < 0.8 * alone


def test_what_is_decoded_has_a_price_and_what_has_none_is_said(smoke: PaperConfig) -> None:
    config = replace(smoke, table=(2,), baselines=("sasrec", "dllm2rec"), d3_scores="sasrec")
    prepare_data(config)

    def of(words: str, **changes: Any) -> Any:
        asked = replace(config, **changes)
        return costs(asked, [only(asked, words)])[0]

    few, many, seeds = of("D3"), of("D3", d3_alpha=(0.5, 0.7, 0.9)), of("D3", seeds=(42, 43))
    assert 0 < few.hours.seconds < many.hours.seconds < 3 * few.hours.seconds
    assert seeds.hours.seconds == pytest.approx(2 * few.hours.seconds)
    teacher = of("dllm2rec")
    assert teacher.hours.seconds > 0
    assert teacher.without == "not estimated: its own training and vectors of titles"
    assert (of("sasrec").hours, of("sasrec").without) == (None, "not estimated: its own training")
    part_storage(config, PART).write_json("decoded/d3-42/result.json", {"status": "finished"})
    assert (of("D3").hours, of("D3").without) == (None, "")
    text = "\n".join(lines(costs(config, list(steps(config, needs(config)))), config))
    assert "train and test dllm2rec: 1 of 1 to do, " in text and "what is estimated, together: " in text
    assert "short beside" not in text


def test_figure_8_is_priced_for_all_that_it_runs(smoke: PaperConfig) -> None:
    """The search draws its values from a range: none of the grid's is left out because it was drawn."""
    config = replace(smoke, figure=(8,), lam=(0.25, 2.0), xi=(1.0, 2.0))
    prepare_data(config)
    assert config.run.objective.lam == 0.25 and config.run.objective.xi == 1.0
    four, two = (
        costs(each, [figure_8(each)])[0].hours for each in (config, replace(config, lam=(3.0,), xi=(3.0,)))
    )
    assert four is not None and two is not None and four.seconds == pytest.approx(2 * two.seconds)
