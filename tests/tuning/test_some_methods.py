"""A later call of a sweep: some of its methods, more of them, and more seeds than before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bearray.config import to_dict
from bearray.data import open_dataset
from bearray.errors import ConfigError, ResumeError
from bearray.tuning.config import SearchConfig, SweepConfig
from bearray.tuning.plans import plan_runs
from bearray.tuning.sweep import _begin, _wanted, check_sweep


@pytest.fixture
def sweep(demo_dir: Path, tmp_path: Path) -> SweepConfig:
    return SweepConfig(
        data_dir=str(demo_dir),
        storage=str(tmp_path / "storage"),
        base_model=("base",),
        methods=("sft", "msl", "dpo", "bear"),
        seeds=(3, 4),
    )


def test_what_starts_from_sft_brings_it_along(sweep: SweepConfig) -> None:
    plans = plan_runs(sweep, open_dataset(sweep.data_dir), "base", "/models/base")
    assert _wanted(sweep, plans, None) == plans
    assert {place.method for place in _wanted(sweep, plans, {"msl"})} == {"msl"}
    assert {place.method for place in _wanted(sweep, plans, {"dpo"})} == {"dpo", "sft"}
    with pytest.raises(ConfigError, match="only has grpo"):
        _wanted(sweep, plans, {"grpo"})


def begun(sweep: SweepConfig) -> None:
    """The storage as the sweep's first call leaves it."""
    dataset = open_dataset(sweep.data_dir)
    before = {"sweep": to_dict(sweep), "dataset": dataset.name, "data_hash": dataset.content_hash}
    Path(sweep.storage).mkdir()
    (Path(sweep.storage) / "sweep.json").write_text(json.dumps(before))


def test_seeds_may_be_added_at_the_end(sweep: SweepConfig) -> None:
    begun(sweep)
    check_sweep(replace(sweep, seeds=(3, 4, 5), test=False))
    for seeds in ((4, 3), (3,), (5, 3, 4)):
        with pytest.raises(ResumeError, match=r"sweep\.seeds"):
            check_sweep(replace(sweep, seeds=seeds))


def test_methods_may_be_added(sweep: SweepConfig) -> None:
    """Their settings come with them; the report and `bearray jobs` then know of them."""
    old = replace(sweep, method_settings=("dpo,bear:train.batch_size=64",))
    begun(old)
    more = replace(
        old,
        methods=("sft", "cft", "msl", "dpo", "sdpo_bear", "bear"),
        method_settings=("bear,dpo,sdpo_bear:train.batch_size=64", "cft:train.lr=2e-4"),
        search=replace(old.search, methods=("bear", "sdpo_bear")),
    )
    storage, dataset = check_sweep(more)
    _begin(more, dataset, storage)
    kept = storage.read_json("sweep.json")["sweep"]
    assert kept == to_dict(more)
    ids = [
        {place: plan.run_id for place, plan in plan_runs(s, dataset, "base", "/models/base").items()}
        for s in (old, more)
    ]
    assert ids[0].items() < ids[1].items()
    with pytest.raises(ResumeError, match=r"sweep\.methods"):  # none may be taken away
        check_sweep(old)


@pytest.mark.parametrize(
    "changes",
    [
        {"methods": ("sft", "msl", "bear")},
        {"methods": ("sft", "msl=bear", "dpo", "bear", "cft")},
        {"methods": ("sft", "msl", "dpo", "bear", "cft"), "method_settings": ("msl:train.lr=2e-4",)},
        {
            "methods": ("sft", "msl", "dpo", "bear", "sdpo_bear"),
            "search": SearchConfig(methods=("sdpo_bear",)),
        },
    ],
)
def test_the_methods_that_were_there_keep_their_settings(sweep: SweepConfig, changes: dict[str, Any]) -> None:
    begun(sweep)
    with pytest.raises(ResumeError, match=r"sweep\.(methods|search\.methods)"):
        check_sweep(replace(sweep, **changes))


def test_sft_cannot_come_after_what_would_have_begun_from_it(sweep: SweepConfig) -> None:
    begun(replace(sweep, methods=("msl", "dpo", "bear")))
    with pytest.raises(ResumeError, match=r"sweep\.methods"):
        check_sweep(sweep)
