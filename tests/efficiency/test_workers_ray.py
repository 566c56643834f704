"""The benchmark on a local Ray: two Train workers, one Data actor, and a failure that is told plainly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bearray.config import override
from bearray.efficiency import benchmark
from bearray.efficiency.config import EfficiencyConfig
from bearray.efficiency.results import gather
from bearray.errors import BearrayError, ResourceError

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


def test_objectives_and_a_decoder(
    make_run: Any, demo_dir: Path, micro_base: Path, local_ray: None, tmp_path: Path
) -> None:
    from bearray.efficiency.workers import check_cluster, decode_on_ray, train_on_ray

    changes = {"train.num_workers": 2, "train.micro_batch_size": 2, "train.engine": "auto"}
    run = override(make_run(changes), {"data.path": "", "model.base": "llama-3.2-3b"})
    config = EfficiencyConfig(
        data_dir=str(demo_dir),
        storage=str(tmp_path),
        base_model=str(micro_base),
        objectives=("sft", "sdpo", "bear"),
        decoders=("beam",),
        rounds=2,
        steps=1,
        warmup_steps=1,
        users=3,
        run=run,
    )
    check_cluster(config.run)
    checked = benchmark.check(config)
    measured, plans = benchmark.prepare(checked, print)
    train_on_ray(measured, plans["training"])
    decode_on_ray(measured, plans["decoding"])
    content = gather(checked.folder, finished=True)
    assert [r["round"] for r in content["training"]["rounds"]] == [0, 1]
    assert [r["round"] for r in content["decoding"]["rounds"]] == [0, 1]
    assert content["training"]["workers"] == 2
    counts = content["training"]["passes"]
    # 8 windows on two workers in micro-batches of 2: two passes each
    assert (counts["sft"]["forward"], counts["sft"]["backward"]) == ([2], [2])
    assert (counts["sdpo"]["forward"], counts["sdpo"]["backward"]) == ([4], [2])
    assert not (tmp_path / "efficiency" / "ray").exists()
    assert benchmark.prepare(benchmark.check(config), print)[1] == {}
    with pytest.raises(ResourceError, match=r"train.num_workers"):
        check_cluster(override(config.run, {"train.num_workers": 8}))
    passes = tmp_path / "efficiency" / "rounds" / "decoding-passes.json"
    about = json.loads(passes.read_text())
    about["machine"]["cpu"] = "another"
    passes.write_text(json.dumps(about))
    with pytest.raises(BearrayError, match="another machine"):
        decode_on_ray(measured, {**plans["decoding"], "rounds": 3})
