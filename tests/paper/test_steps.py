"""What each kind of step counts as done, refuses, and asks for."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from bearray.config import to_dict
from bearray.efficiency.config import EfficiencyConfig
from bearray.efficiency.variants import objective_variants
from bearray.errors import ResumeError
from bearray.paper.config import PaperConfig
from bearray.paper.data import prepare_data
from bearray.paper.parts import needs
from bearray.paper.steps import d3, sensitivity, steps, timing
from bearray.paper.sweeps import part_storage
from tests.paper.planted import PART, figure_8, only, plant, write_folder


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
