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
import psutil
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from tensorboardX import SummaryWriter

from bearray import cli, dashboards
from bearray.dashboards import Program, programs, running
from bearray.errors import MissingFileError, ResourceError
from tests.jobs.stored import PART, make_paper

CLI = "from bearray.cli import main; main()"


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper's storage, with one part as a sweep leaves it for the two."""
    folder = make_paper(tmp_path_factory.mktemp("paper"))
    write_shown(folder / PART)
    (folder / PART / "sensitivity" / "tune").mkdir()
    return folder


@pytest.fixture(scope="module")
def storage(paper: Path) -> Path:
    """A sweep's storage."""
    return paper / PART


def write_shown(folder: Path) -> None:
    """A trial's TensorBoard events, a search's journal."""
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


def listening(process: subprocess.Popen[str]) -> set[tuple[str, int]]:
    """Where a process and those that it has started listen."""
    own = psutil.Process(process.pid)
    sockets = [s for one in (own, *own.children(recursive=True)) for s in one.net_connections()]
    return {(s.laddr.ip, s.laddr.port) for s in sockets if s.status == psutil.CONN_LISTEN}


@pytest.mark.slow
def test_both_show_a_trials_metric_until_ctrl_c(paper: Path) -> None:
    """Of the paper, whose parts are sweeps; TensorBoard's names of runs then begin with the part's."""
    run = f"{PART}/tune/bear-search/bear_0001"
    with command(paper) as (process, found):
        assert set(found) == {"TensorBoard", f"Optuna, {PART}/bear-tiny-0123"}
        ports = {int(address.rpartition(":")[2]) for address in found.values()}
        assert {(ip, port) for ip, port in listening(process) if port in ports} == {
            ("127.0.0.1", port) for port in ports
        }
        assert {ip for ip, _ in listening(process)} <= {"127.0.0.1", "::1"}
        assert "TensorBoard" in get(found["TensorBoard"])
        plugin = f"{found['TensorBoard']}/data/plugin/scalars"
        tag = "ray/tune/valid_ndcg_10"  # as it writes the @
        while tag not in json.loads(get(f"{plugin}/tags")).get(run, {}):
            time.sleep(0.5)  # it reads the files after it listens
        points = json.loads(get(f"{plugin}/scalars?run={run}&tag={tag}"))
        assert [(step, value) for _, step, value in points] == [(1, 0.125), (2, 0.25)]
        optuna_ = found[f"Optuna, {PART}/bear-tiny-0123"]
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


def test_what_is_shown_of_a_sweep_and_of_the_paper(paper: Path, storage: Path) -> None:
    board, search = programs(str(storage))
    assert (board.title, search.title) == ("TensorBoard", "Optuna, bear-tiny-0123")
    assert board.arguments[:2] == ("--logdir", str(storage / "tune"))
    board, search = programs(str(paper))
    assert search.title == f"Optuna, {PART}/bear-tiny-0123"
    assert board.arguments[:2] == ("--logdir", str(paper))


def test_nothing_to_show_of_a_paper_that_has_just_begun(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="neither"):
        programs(str(make_paper(tmp_path)))


def test_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="neither"):
        programs(str(tmp_path))
    with pytest.raises(MissingFileError, match="no folder"):
        programs(str(tmp_path / "gone"))


def test_a_missing_package_is_named(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboards, "entry_points", lambda **_: [])
    with pytest.raises(ResourceError, match=r"tensorboard is not installed.*pip install"):
        programs(str(storage))


def test_one_that_does_not_start_ends_the_others(storage: Path) -> None:
    bad = Program("Bad", "optuna-dashboard", ("--no-such-option",))
    with (
        pytest.raises(ResourceError, match=r"Bad ended with exit code 2.*no-such-option"),
        running([programs(str(storage))[1], bad]),
    ):
        pytest.fail("it cannot have started")
    left = [child.cmdline() for child in psutil.Process().children(recursive=True)]
    assert not any("optuna-dashboard" in words for words in left)


def test_they_listen_on_loopback_only(storage: Path) -> None:
    for program in programs(str(storage)):
        assert program.arguments[program.arguments.index("--host") + 1] == "127.0.0.1"
