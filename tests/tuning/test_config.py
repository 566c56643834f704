"""Sweep settings, scales and the command line of a sweep."""

from __future__ import annotations

import pytest

from bearray.config import RunConfig
from bearray.errors import ConfigError
from bearray.tuning.config import CPU, SearchConfig, SweepConfig, scaled
from bearray.tuning.departures import ALWAYS, departures
from bearray.tuning.main import parse, run


def recipe() -> SweepConfig:
    return SweepConfig(data_dir="somewhere", storage="elsewhere")


def test_the_paper_is_the_default() -> None:
    run_config = recipe().run
    assert (run_config.data.train_windows, run_config.train.epochs, run_config.train.batch_size) == (
        10_000,
        10,
        128,
    )
    assert (run_config.model.lora_r, run_config.train.lr, run_config.decoding.beam_width) == (8, 1e-4, 10)
    assert recipe().base_model == ("llama-3.2-3b",)
    assert (recipe().search.lam, recipe().search.xi) == ((0.1, 5.0), (0.25, 3.0))


def test_a_scale_changes_its_settings_and_nothing_else() -> None:
    cpu = scaled(recipe(), "cpu")
    assert cpu.base_model == ("local:tiny",)
    assert cpu.run.data.train_windows == CPU["data.train_windows"]
    assert cpu.run.objective == RunConfig().objective
    assert (cpu.data_dir, cpu.storage) == ("somewhere", "elsewhere")


def test_explicit_settings_beat_the_scale() -> None:
    sweep = parse(recipe, ["--smoke", "--train.epochs", "7", "--base-model", "local:tiny", "local:tiny"])
    assert sweep.smoke and sweep.scale == "smoke"
    assert sweep.run.train.epochs == 7
    assert sweep.base_model == ("local:tiny", "local:tiny")
    assert sweep.run.data.train_windows == scaled(recipe(), "smoke").run.data.train_windows


def test_every_config_field_can_be_overridden() -> None:
    sweep = parse(
        recipe, ["--objective.form", "hinge", "--search.lam", "0.5", "1.5", "--methods", "sft", "bear"]
    )
    assert sweep.run.objective.form == "hinge"
    assert sweep.search.lam == (0.5, 1.5)
    assert sweep.methods == ("sft", "bear")


def test_a_sweep_on_another_backbone() -> None:
    given = ["--model.backbone", "llara", "--model.lora-r", "0", "--model.soft.no-curriculum"]
    model = parse(recipe, given).run.model
    assert (model.backbone, model.lora_r, model.soft.curriculum) == ("llara", 0, False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--objective.lam", "-1"],
        ["--objective.xi", "0"],
        ["--decoding.beam-width", "0"],
        ["--search.trials", "0"],
        ["--search.xi", "0", "1"],
        ["--methods", "sft", "nonsense"],
        ["--train.zero-stage", "4"],
        ["--no-such-setting", "1"],
        ["--scale", "huge"],
    ],
)
def test_bad_settings_exit_with_2_and_no_traceback(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = run(recipe, arguments)
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    assert code == 2
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    assert printed.out + printed.err


@pytest.mark.parametrize(
    "changes", [{"lam": (2.0, 1.0)}, {"xi": (0.0, 1.0)}, {"trials": 0}, {"max_concurrent": 0}]
)
def test_search_ranges_are_checked(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="search"):
        SearchConfig(**changes)  # type: ignore[arg-type]


def test_departures_name_what_differs_and_only_that() -> None:
    paper = departures(recipe())
    assert paper[-len(ALWAYS) :] == list(ALWAYS)
    assert not any("train." in line for line in paper)
    cpu = "\n".join(departures(scaled(recipe(), "cpu")))
    for name in ("data.train_windows", "train.epochs", "train.lr", "stand-in"):
        assert name in cpu
