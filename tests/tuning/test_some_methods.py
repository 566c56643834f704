"""A later call of a sweep: some of its methods, and more seeds than before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bearray.config import to_dict
from bearray.data import open_dataset
from bearray.errors import ConfigError, ResumeError
from bearray.tuning.config import SweepConfig
from bearray.tuning.plans import plan_runs
from bearray.tuning.sweep import _wanted, check_sweep


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


def test_seeds_may_be_added_at_the_end(sweep: SweepConfig) -> None:
    dataset = open_dataset(sweep.data_dir)
    before = {"sweep": to_dict(sweep), "dataset": dataset.name, "data_hash": dataset.content_hash}
    Path(sweep.storage).mkdir()
    (Path(sweep.storage) / "sweep.json").write_text(json.dumps(before))
    check_sweep(replace(sweep, seeds=(3, 4, 5), test=False))
    for seeds in ((4, 3), (3,), (5, 3, 4)):
        with pytest.raises(ResumeError, match=r"sweep\.seeds"):
            check_sweep(replace(sweep, seeds=seeds))
