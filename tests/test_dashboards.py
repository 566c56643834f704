"""`bearray dashboard`, really started: both programs show a trial's metric, and end with the command."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from tensorboardX import SummaryWriter

from bearray import cli, dashboards
from bearray.dashboards import Program, programs, running
from bearray.errors import MissingFileError, ResourceError

CLI = "from bearray.cli import main; main()"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a sweep leaves for the two: a trial's TensorBoard events, a search's journal."""
    folder = tmp_path_factory.mktemp("sweep") / "demo"
    with SummaryWriter(str(folder / "tune" / "bear-search" / "bear_0001")) as writer:
        for epoch in (1, 2):
            writer.add_scalar("ray/tune/valid_ndcg@10", 0.125 * epoch, epoch)
    (folder / "optuna").mkdir()
    journal = JournalStorage(JournalFileBackend(str(folder / "optuna" / "bear-tiny-0123.log")))
    study = optuna.create_study(study_name="bear-tiny", storage=journal, direction="maximize")
    study.add_trial(
        optuna.trial.create_trial(
            params={"lam": 0.5},
            distributions={"lam": optuna.distributions.FloatDistribution(0.1, 5.0)},
            value=0.4375,
        )
    )
    return folder


def get(address: str) -> str:
    with urllib.request.urlopen(address, timeout=120) as answer:
        return str(answer.read().decode("utf-8"))


@contextmanager
def command(storage: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The command, running, and the addresses that it prints by title."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLI, "dashboard", str(storage)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        found = {}
        for line in process.stdout:
            if match := re.match(r"(\S.*?)\s+(http://127\.0\.0\.1:\d+)$", line.strip()):
                found[match[1]] = match[2]
            if line.startswith("Ctrl-C"):
                break
        yield process, found
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_both_show_a_trials_metric_until_ctrl_c(storage: Path) -> None:
    with command(storage) as (process, found):
        assert set(found) == {"TensorBoard", "Optuna, bear-tiny-0123"}
        assert "TensorBoard" in get(found["TensorBoard"])
        plugin = f"{found['TensorBoard']}/data/plugin/scalars"
        tag = "ray/tune/valid_ndcg_10"  # as it writes the @
        while tag not in json.loads(get(f"{plugin}/tags")).get("bear-search/bear_0001", {}):
            time.sleep(0.5)  # it reads the files after it listens
        points = json.loads(get(f"{plugin}/scalars?run=bear-search/bear_0001&tag={tag}"))
        assert [(step, value) for _, step, value in points] == [(1, 0.125), (2, 0.25)]
        optuna_ = found["Optuna, bear-tiny-0123"]
        (study,) = json.loads(get(f"{optuna_}/api/studies"))["study_summaries"]
        assert study["study_name"] == "bear-tiny"
        trials = json.loads(get(f"{optuna_}/api/studies/{study['study_id']}?after=0"))["trials"]
        assert [trial["values"] for trial in trials] == [[0.4375]]
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
        for address in found.values():
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) != 0


def test_what_is_remote_must_be_copied_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["dashboard", "s3://bucket/sweeps/book"]) == 2
    error = capsys.readouterr().err
    assert "bearray jobs fetch --storage s3://bucket/sweeps/book" in error and "Traceback" not in error


def test_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="neither"):
        programs(str(tmp_path))
    with pytest.raises(MissingFileError, match="no folder"):
        programs(str(tmp_path / "gone"))


def test_a_missing_package_is_named(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboards, "entry_points", lambda **_: [])
    with pytest.raises(ResourceError, match=r"tensorboard is not installed.*pip install"):
        programs(str(storage))


def test_one_that_does_not_start_ends_the_others() -> None:
    bad = Program("TensorBoard", "tensorboard", ("--no-such-option",))
    with (
        pytest.raises(ResourceError, match=r"TensorBoard ended with exit code 2.*no-such-option"),
        running([bad]),
    ):
        pytest.fail("it cannot have started")


def test_they_listen_on_loopback_only(storage: Path) -> None:
    for program in programs(str(storage)):
        assert program.arguments[program.arguments.index("--host") + 1] == "127.0.0.1"
