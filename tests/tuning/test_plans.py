"""Which runs a sweep is made of: seeds, what starts from what, settings of some methods only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bearray.config import override
from bearray.data import open_dataset
from bearray.efficiency.config import EfficiencyConfig
from bearray.errors import ConfigError
from bearray.objectives import OBJECTIVES
from bearray.tuning.config import SearchConfig, SweepConfig
from bearray.tuning.departures import departures
from bearray.tuning.plans import Place, plan_runs
from bearray.tuning.settings import method_settings
from bearray.tuning.trial import RunPlan

Plan = Callable[..., dict[Place, RunPlan]]


def sweep(**changes: Any) -> SweepConfig:
    changes = {"methods": ("bear", "dpo", "sft", "msl"), "seeds": (3, 4), **changes}
    return SweepConfig(data_dir="data", storage="here", base_model=("base",), **changes)


@pytest.fixture
def plan(demo_dir: Path) -> Plan:
    dataset = open_dataset(demo_dir)
    return lambda config: plan_runs(config, dataset, "base", "/models/base")


def test_every_method_has_a_run_for_each_seed(plan: Plan) -> None:
    plans = plan(sweep())
    assert set(plans) == {Place("base", m, s) for m in ("sft", "msl", "bear", "dpo") for s in (3, 4)}
    assert len({p.run_id for p in plans.values()}) == 8
    for place, found in plans.items():
        assert found.config.train.seed == place.seed
        assert found.config.objective.name == place.method
        assert found.role == ("trial" if place.method == "bear" else "method")
        assert found.config.model.base == "/models/base" and found.base_model == "base"


def test_without_seeds_there_is_the_runs_own(plan: Plan) -> None:
    one = sweep(seeds=(), run=override(SweepConfig().run, {"train.seed": 9}))
    assert {place.seed for place in plan(one)} == {9}


def test_preference_objectives_start_from_sft_of_the_same_seed(plan: Plan) -> None:
    plans = plan(sweep())
    for place, found in plans.items():
        sft = plans[Place("base", "sft", place.seed)]
        wanted = f"run:{sft.run_id}" if place.method == "dpo" else None
        assert found.config.train.init_adapter == wanted


def test_a_run_is_the_same_wherever_its_storage_is(plan: Plan) -> None:
    here, there = plan(sweep()), plan(dataclasses.replace(sweep(), storage="/somewhere/else"))
    assert {k: p.run_id for k, p in here.items()} == {k: p.run_id for k, p in there.items()}


@pytest.mark.parametrize(
    "changes",
    [
        {"start_from": "none"},
        {"methods": ("dpo", "msl")},
        {"run": override(SweepConfig().run, {"train.init_adapter": "/an/adapter"})},
        {"method_settings": ('dpo:train.init_adapter="/an/adapter"',)},
    ],
    ids=["none", "no-sft", "run", "method"],
)
def test_other_starts(changes: dict[str, Any], plan: Plan) -> None:
    wanted = "/an/adapter" if {"run", "method_settings"} & set(changes) else None
    for place, found in plan(sweep(**changes)).items():
        if place.method == "dpo":
            assert found.config.train.init_adapter == wanted


def test_a_start_is_named_so_that_workers_find_it(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Workers have other working directories than the program that was given a relative path."""
    monkeypatch.chdir(tmp_path)
    relative = override(SweepConfig().run, {"train.init_adapter": "an/adapter"})
    starts = {p.config.train.init_adapter for p in plan(sweep(run=relative)).values()}
    assert starts == {str(tmp_path / "an" / "adapter")}
    timed = EfficiencyConfig(run=relative).measured_run("/data", "/base")
    assert timed.train.init_adapter == str(tmp_path / "an" / "adapter")
    remote = override(SweepConfig().run, {"train.init_adapter": "s3://bucket/adapter"})
    assert {p.config.train.init_adapter for p in plan(sweep(run=remote)).values()} == {"s3://bucket/adapter"}


def test_who_starts_from_sft() -> None:
    everything = sweep(methods=tuple(OBJECTIVES))
    started = {m for m in OBJECTIVES if everything.starts_from_sft(m)}
    assert started >= {"sdpo", "dpo", "dmpo", "rosepo", "sdpo_bear"}
    assert not started & {"sft", "msl", "bear", "beam_simulation", "cft", "d2lr", "igd", "flower", "sprec"}
    assert any("start from the best checkpoint of the SFT run" in line for line in departures(everything))


def test_an_adapter_that_cannot_fit_is_refused(plan: Plan) -> None:
    with pytest.raises(ConfigError, match=r"dpo starts from the adapter of SFT.*model\.lora_r: 8 -> 4"):
        plan(sweep(method_settings=("dpo:model.lora_r=4",)))


def test_settings_of_some_methods_only(plan: Plan) -> None:
    texts = (
        "dpo,msl:train.lr=2e-5",
        'sft:model.lora_targets=["q_proj"]',
        'dpo:model.lora_targets=["q_proj"]',
    )
    plans = plan(sweep(method_settings=(*texts, "sft:decoding.normalize=full")))
    for place, found in plans.items():
        assert found.config.train.lr == (2e-5 if place.method in ("dpo", "msl") else 1e-4)
        assert found.config.decoding.normalize == ("full" if place.method == "sft" else "trie")
        targets = ("q_proj",) if place.method in ("sft", "dpo") else ("q_proj", "v_proj")
        assert found.config.model.lora_targets == targets


def test_what_only_regularisers_use_does_not_make_two_runs_of_one(plan: Plan) -> None:
    strong = sweep(run=override(SweepConfig().run, {"objective.lam": 2.0}))
    ours, theirs = plan(sweep()), plan(strong)
    same = {place.method for place in ours if ours[place].run_id == theirs[place].run_id}
    assert same == {"sft", "msl", "dpo"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.lr=1", "must be METHOD:SETTING=VALUE"),
        ("dpo:train.lr", "must be METHOD:SETTING=VALUE"),
        ("dpo:=3", "must be METHOD:SETTING=VALUE"),
        ("grpo:train.lr=1", r"'grpo' is not in methods \(sft, dpo\)"),
        ("dpo:train.rate=1", r"unknown setting 'train\.rate'"),
        ("dpo:train.lr=fast", r"train\.lr is 'fast'"),
        ("dpo:train.lr=-1", r"train\.lr is -1"),
        ("dpo:train.seed=1", r"train\.seed is the sweep's own"),
        ("dpo:objective.name=sft", r"objective\.name is the sweep's own"),
    ],
)
def test_method_settings_that_cannot_work(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        method_settings([text], {"sft": "sft", "dpo": "dpo"}, SweepConfig().run)


def test_a_variant_is_a_method_of_its_own(plan: Plan) -> None:
    config = sweep(
        methods=("sft", "bear", "hinge=bear", "other_dpo=dpo"),
        method_settings=("hinge:objective.form=hinge", "hinge:objective.lam=2"),
        seeds=(3,),
    )
    found = {place.method: run for place, run in plan(config).items()}
    assert list(found) == ["sft", "bear", "hinge", "other_dpo"] and config.searched == ("bear",)
    assert [found[m].config.objective.name for m in found] == ["sft", "bear", "bear", "dpo"]
    assert (found["bear"].config.objective.form, found["hinge"].config.objective.form) == (
        "equation",
        "hinge",
    )
    assert found["hinge"].config.objective.lam == 2 and found["hinge"].method == "HINGE"
    assert found["hinge"].run_id.startswith("hinge-")
    assert found["other_dpo"].config.train.init_adapter == f"run:{found['sft'].run_id}"
    searched = replace(config, search=SearchConfig(methods=("hinge",)), method_settings=())
    assert searched.searched == ("hinge",)


def test_a_method_setting_is_given_once() -> None:
    with pytest.raises(ConfigError, match=r"gives dpo train\.lr twice"):
        method_settings(
            ["dpo:train.lr=1e-4", "sft,dpo:train.lr=1e-5"],
            {"sft": "sft", "dpo": "dpo"},
            SweepConfig().run,
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (1, 1)}, "seeds is"),
        ({"seeds": (-1,)}, "seeds is"),
        ({"methods": ()}, "methods is empty"),
        ({"methods": ("sft", "sft")}, "'sft' twice"),
        ({"methods": ("sft", "dpo=sft", "dpo")}, "'dpo' twice"),
        ({"methods": ("My Label=sft",)}, "My Label=sft"),
        ({"methods": ("x=nothing",)}, "unknown objective 'nothing'"),
        ({"methods": ("plain=sft",), "search": SearchConfig(methods=("plain",))}, "has plain"),
        ({"method_settings": ("bear:objective.lam=1",)}, r"bear what is searched: objective\.lam"),
    ],
)
def test_sweeps_that_cannot_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep(**changes)
