"""A sweep from a head without room for it, on nodes that Ray's autoscaler makes; data and storage on S3."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import alone
from tests.cluster.files import ROOT

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, demo_dir: Path, micro_base: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("growing")
    (folder / "ray").mkdir()
    if (reason := alone.why_not(folder / "ray")) is not None:
        pytest.skip(f"{reason}, and without it the fake nodes would meet other clusters of this machine")
    program = [sys.executable, "-m", "tests.cluster.growing", str(demo_dir), str(micro_base), str(folder)]
    words, environment = alone.command(program, folder / "ray")
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"told": done.stdout}


def test_the_autoscaler_makes_a_node_and_takes_it_back(played: dict[str, Any]) -> None:
    assert played["nodes before"] == 1
    assert played["nodes made"] >= 1
    assert played["nodes at the end"] == 1


def test_the_sweep_is_whole_on_s3(played: dict[str, Any]) -> None:
    results = played["results"]
    assert sorted(root.rpartition("/")[2].partition("-")[0] for root in results) == ["bear"]
    for root, result in results.items():
        assert root.startswith("s3://bearray/sweep/runs/")
        assert result["status"] == "finished" and result["chosen"]
        assert 0 <= result["test"]["trie"]["all"]["ndcg@10"]["mean"] <= 1
        assert result["checkpoint"].startswith(root)
        run = "/".join(root.split("/")[-2:])
        below = {name.removeprefix(f"{run}/") for name in played["files"] if name.startswith(f"{run}/")}
        assert {"config.json", "metrics.jsonl", "result.json"} <= below
        assert any(name.startswith("checkpoints/") and name.endswith(".safetensors") for name in below)
        assert any(name.startswith("predictions/") and name.endswith(".parquet") for name in below)
    assert {"sweep.json", "report/index.html", "report/report.md"} <= set(played["files"])


def test_a_second_call_trains_and_decodes_nothing(played: dict[str, Any]) -> None:
    again = [name for name in played["changed by a second call"] if name.startswith("runs/")]
    assert again == []
