"""What a search varies beside lambda and xi, for any method."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.tune.search.sample import Categorical, Float, Integer

from bearray.config import to_dict
from bearray.data import open_dataset
from bearray.errors import ConfigError, ResumeError
from bearray.tuning.config import SearchConfig, SweepConfig
from bearray.tuning.departures import departures
from bearray.tuning.plans import Place, plan_runs, trial_plan
from bearray.tuning.search import _domain
from bearray.tuning.space import Axis
from bearray.tuning.sweep import check_sweep


def sweep(*space: str, **changes: Any) -> SweepConfig:
    search = SearchConfig(space=space, **changes.pop("search", {}))
    changes = {"methods": ("sft", "cft", "sdpo", "bear", "hinge=bear"), **changes}
    return SweepConfig(data_dir="data", storage="here", base_model=("base",), search=search, **changes)


def test_lambda_and_xi_are_searched_by_default_and_others_on_demand() -> None:
    assert sweep().searched == ("bear",)
    assert sweep().axes("bear") == {
        "lam": Axis("objective.lam", 0.1, 5.0),
        "xi": Axis("objective.xi", 0.25, 3.0),
    }
    more = sweep(
        "cft,sdpo:train.lr=1e-4..1e-3", "sdpo:objective.negatives=1|3|5", "hinge:objective.lam=0.1..1"
    )
    assert more.searched == ("cft", "sdpo", "bear", "hinge")
    rate = Axis("train.lr", 1e-4, 1e-3)
    assert more.axes("cft") == {"train.lr": rate} and more.axes("sft") == {}
    assert more.axes("sdpo") == {
        "train.lr": rate,
        "objective.negatives": Axis("objective.negatives", values=(1, 3, 5)),
    }
    assert list(sweep("bear:train.lr=1e-4..1e-3").axes("bear")) == ["lam", "xi", "train.lr"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cft", "must be METHOD:SETTING=LOW..HIGH"),
        ("cft:train.lr", "must be METHOD:SETTING=LOW..HIGH"),
        ("cft:train.lr=1e-4", "two or more different"),
        ("cft:train.lr=1e-4|1e-4", "two or more different"),
        ("cft:model.lora_targets=[1]|[2]", "two or more different words or numbers"),
        ("cft:train.lr=low..high", "ends of its range must be numbers"),
        ("cft:train.lr=1e-3..1e-4", "0 < low < high"),
        ("cft:train.lr=0..1e-4", "0 < low < high, or search.log_scale false"),
        ("msl:train.lr=1e-4..1e-3", "'msl' is not in methods"),
        ("cft:train.rate=1e-4..1e-3", r"train\.rate"),
        ("cft:train.lr=-1|1", r"train\.lr"),
        ("cft:train.seed=1|2", "sweep's own"),
        ("bear:objective.lam=0.1..1", "which search.methods searches"),
        ("sft:train.lr=1e-4..1e-3", "sdpo would start before it is chosen"),
    ],
)
def test_spaces_that_cannot_work(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep(text)


def test_an_axis_is_given_once_and_not_fixed_elsewhere() -> None:
    with pytest.raises(ConfigError, match=r"gives cft train\.lr twice"):
        sweep("cft:train.lr=1e-4..1e-3", "sft,cft:train.lr=1|2")
    with pytest.raises(ConfigError, match=r"method_settings gives cft what is searched: train\.lr"):
        sweep("cft:train.lr=1e-4..1e-3", method_settings=("cft:train.lr=1e-4",))
    assert sweep("sft:train.lr=1e-4..1e-3", start_from="none").searched == ("sft", "bear")


@pytest.mark.parametrize(
    ("axis", "kind", "log"),
    [
        (Axis("train.lr", 1e-4, 1e-3), Float, True),
        (Axis("train.lr", 1e-4, 1e-3), Float, False),
        (Axis("objective.negatives", 1, 5), Integer, True),
        (Axis("objective.negatives", 1, 5), Integer, False),
    ],
)
def test_ranges_are_sampled_between_their_ends(axis: Axis, kind: type, log: bool) -> None:
    domain = _domain(axis, log)
    assert isinstance(domain, kind)
    assert isinstance(domain.get_sampler(), tune.search.sample.LogUniform) == log
    drawn = [domain.sample() for _ in range(200)]
    assert axis.low is not None and axis.high is not None
    assert all(axis.low <= value <= axis.high for value in drawn)
    assert kind is Float or set(drawn) == {1, 2, 3, 4, 5}


def test_values_are_chosen_among() -> None:
    domain = _domain(Axis("objective.form", values=("equation", "hinge")), log_scale=True)
    assert isinstance(domain, Categorical) and set(domain.categories) == {"equation", "hinge"}


def test_a_trial_has_what_was_drawn(demo_dir: Path) -> None:
    config = sweep("sdpo:train.lr=1e-4..1e-3", "sdpo:objective.negatives=1|3")
    plans = plan_runs(config, open_dataset(demo_dir), "base", "/models/base")
    plan = plans[Place("base", "sdpo", 42)]
    assert plan.role == "trial" and plans[Place("base", "sft", 42)].role == "method"
    drawn = trial_plan({"train.lr": 5e-4, "objective.negatives": 1}, plan.to_dict())
    assert (drawn.config.train.lr, drawn.config.objective.negatives) == (5e-4, 1)
    assert drawn.run_id != plan.run_id and drawn.config.train.init_adapter == plan.config.train.init_adapter


def test_departures_say_who_was_searched_and_who_was_not() -> None:
    text = "\n".join(departures(sweep("cft:train.lr=1e-4..1e-3")))
    assert "CFT, BEAR: the best of these trials" in text and "SFT, S-DPO, HINGE: one setting each" in text


def test_a_storage_begun_without_a_space_goes_on(demo_dir: Path, tmp_path: Path) -> None:
    def on_demo(config: SweepConfig) -> SweepConfig:
        return replace(config, data_dir=str(demo_dir), storage=str(tmp_path / "storage"))

    old = on_demo(sweep(methods=("sft", "cft", "bear")))
    values = to_dict(old)
    del values["search"]["space"]
    dataset = open_dataset(demo_dir)
    Path(old.storage).mkdir()
    begun = {"sweep": values, "dataset": dataset.name, "data_hash": dataset.content_hash}
    (Path(old.storage) / "sweep.json").write_text(json.dumps(begun))
    check_sweep(old)
    check: Callable[[SweepConfig], object] = check_sweep
    added = {"methods": ("sft", "cft", "bear", "sdpo")}
    check(on_demo(sweep("sdpo:train.lr=1e-4..1e-3", **added)))
    with pytest.raises(ResumeError, match=r"sweep\.search\.space"):
        check(on_demo(sweep("cft:train.lr=1e-4..1e-3", **added)))
