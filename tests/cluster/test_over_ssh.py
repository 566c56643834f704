"""cluster/local.yaml, run for real: an ssh server on 127.0.0.1 is the machine, and every command is one of
docs/cluster.md. It happens in namespaces of its own, as `ray up` and `ray down` call `ray stop`, which ends
every Ray that it sees; and the user's own home, keys and token are never touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import alone
from tests.cluster.files import ROOT
from tests.cluster.machine import SECRETS, missing
from tests.cluster.over_ssh import PLAYED

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(3600)]

SMALLEST = [
    "--methods", "bear", "--search.trials", "1", "--train.epochs", "1", "--train.engine", "ddp",
    "--data.train-windows", "16", "--data.valid-windows", "8", "--data.test-windows", "8",
    "--model.max-prompt-tokens", "128", "--evaluation.actors", "1", "--evaluation.shard-size", "4",
]  # fmt: skip
"""One trial of BEAR, one epoch, eight test cases in two shards."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ssh")


@pytest.fixture(scope="module")
def played(folder: Path, demo_dir: Path, micro_base: Path) -> dict[str, Any]:
    """What came of each step."""
    if absent := missing():
        pytest.skip(f"needs {', '.join(absent)} (Debian, Ubuntu: apt-get install openssh-server rsync)")
    (folder / "ray").mkdir()
    if (reason := alone.why_not(folder / "ray")) is not None:
        pytest.skip(f"{reason}, and without it `ray up` would end other clusters of this machine")
    storage = folder / "shared" / "demo"
    places = ["--data-dir", str(demo_dir), "--base-model", str(micro_base), "--storage", str(storage)]
    plan = folder / "plan.json"
    plan.write_text(json.dumps({"folder": str(folder), "sweep": places + SMALLEST}), encoding="utf-8")
    program = [sys.executable, "-m", "tests.cluster.over_ssh", str(plan)]
    words, environment = alone.command(program, folder / "ray")
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    result = folder / PLAYED
    assert result.is_file(), f"the play has not begun: {done.stdout}{done.stderr}"
    steps: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    assert done.returncode == 0, f"after {list(steps)}: {steps[list(steps)[-1]]} {done.stdout}{done.stderr}"
    return steps


def well(played: dict[str, Any], step: str, code: int = 0) -> str:
    """A step's output; it ended with the exit code."""
    assert played[step]["code"] == code, f"{step}: {played[step]}"
    return str(played[step]["out"])


def test_ray_up_installs_and_starts(played: dict[str, Any], folder: Path) -> None:
    well(played, "up")
    assert (folder / "head" / "bearray" / "bearray" / "cli.py").is_file()
    assert (folder / "venv" / "bin" / "bearray").is_file()  # by cluster/setup.sh
    for private in (".ray/auth_token", ".config/bearray/secrets.env"):
        assert (folder / "head" / private).stat().st_mode & 0o777 == 0o600


def test_a_client_without_the_token_is_refused_in_one_message(played: dict[str, Any]) -> None:
    assert "the cluster refuses the token" in played["without token"]["err"]
    well(played, "without token", 2)


def test_a_job_has_the_environment_and_the_secrets_of_the_head(played: dict[str, Any], folder: Path) -> None:
    expected = f"python {folder}/venv/bin/python in {folder}/head/bearray with {len(SECRETS['HF_TOKEN'])}"
    assert expected in well(played, "who")


def test_the_last_words_of_a_worker_that_died(played: dict[str, Any]) -> None:
    well(played, "crash", 1)
    assert "job crash-1: FAILED" in played["crash"]["err"]
    assert "  | the last words of a worker" in played["crash"]["err"]


def test_the_log_is_whole_though_the_connection_was_cut(played: dict[str, Any]) -> None:
    log = well(played, "logs")
    assert "the connection to the cluster is gone" in played["logs"]["err"]
    assert "connected again" in played["logs"]["err"]
    assert "sweep finished" in log
    lines = [line for line in well(played, "log as Ray has it").splitlines() if line.strip()]
    for line in log.splitlines():
        assert line.strip() in "\n".join(lines)
    assert log.count("sweep finished") == 1


def test_progress_by_way_of_the_head(played: dict[str, Any]) -> None:
    early = json.loads(well(played, "early status"))
    assert early["state"] in ("RUNNING", "SUCCEEDED") and early["job"] == "sweep-1"
    stages = {stage["name"]: stage["total"] for stage in early["progress"]["stages"]}
    assert stages == {"search": 1, "test": 1}
    late = well(played, "status")
    assert "job sweep-1: SUCCEEDED" in late
    for line in ("search   1 of 1 finished", "test     1 of 1 finished", "report   written", "test shards"):
        assert line in late
    listed = well(played, "list").splitlines()
    assert {line.split()[1] for line in listed if "crash-1" in line} == {"FAILED"}
    assert not any("jobs.answer" in line for line in listed)


def test_results_come_without_checkpoints(played: dict[str, Any], folder: Path) -> None:
    assert well(played, "fetch").strip() == str(folder / "fetched" / "report" / "index.html")
    there, here = folder / "shared" / "demo", folder / "fetched"
    files = {path.relative_to(there) for path in there.rglob("*") if path.is_file()}
    brought = {path.relative_to(here) for path in here.rglob("*") if path.is_file()}
    assert brought == {path for path in files if "checkpoints" not in path.parts}
    assert brought < files


def test_ray_down_leaves_nothing(played: dict[str, Any]) -> None:
    well(played, "down")
    assert played["left"] == []


def test_everything_listens_on_loopback_that_a_browser_reaches(played: dict[str, Any]) -> None:
    """The dashboard (8265) is bound to 127.0.0.1 alone."""
    rows = [line.split() for line in well(played, "listening").splitlines() if ":" in line]
    listening = [row[1].split(":") for row in rows if row[3] == "0A"]
    dashboards = {address for address, port in listening if int(port, 16) == 8265}
    assert dashboards == {"0100007F"}


def written(*places: Path) -> Iterator[Path]:
    for place in places:
        for directory, _, names in os.walk(place):
            yield from (Path(directory, name) for name in names)


def test_no_secret_is_written_anywhere(played: dict[str, Any], folder: Path) -> None:
    """Not by the sweep, not into Ray's logs and session, not into the jobs' metadata, and none is printed."""
    token = (folder / "laptop" / ".ray" / "auth_token").read_text(encoding="utf-8")
    values = [value.encode() for value in (*SECRETS.values(), token)]
    printed = json.dumps(played).encode()
    assert not any(value in printed for value in values)
    files = [
        path for path in written(folder / "shared", folder / "fetched", folder / "ray") if path.is_file()
    ]
    assert any(path.name == "config.json" for path in files) and any(path.suffix == ".log" for path in files)
    for path in files:
        content = path.read_bytes()
        assert not any(value in content for value in values), path
