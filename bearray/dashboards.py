"""TensorBoard and optuna-dashboard on the storage of a sweep, or of the paper's sweeps, on free ports of
127.0.0.1."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO

from bearray.errors import ConfigError, MissingFileError, ResourceError
from bearray.paper.stored import RECORD, sweeps_in
from bearray.plain import printable
from bearray.runs import Storage

HOST = "127.0.0.1"
"""Neither program asks who is there."""
START_SECONDS = 180.0
"""Within so long a dashboard listens, on a busy machine, too, after the one before it does."""
_POLL = 0.2
_RUN = """
import sys
from importlib.metadata import entry_points
sys.argv[0] = sys.argv.pop(1)
(script,) = entry_points(group="console_scripts", name=sys.argv[0])
sys.exit(script.load()())
"""
"""A package's command by this Python, wherever its script is installed."""


@dataclass(frozen=True)
class Program:
    """A dashboard to start."""

    title: str
    command: str
    """Its console script."""
    arguments: tuple[str, ...]
    """`{port}` stands for the port."""


@dataclass(frozen=True)
class Running:
    """A dashboard that answers."""

    title: str
    port: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}"

    def trouble(self) -> str | None:
        """Why it has ended, with its last words; None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        self.log.seek(0)
        last = self.log.read().decode(errors="replace").strip().splitlines()[-3:]
        return f"{self.title} ended with exit code {code}: {'; '.join(last)}"


def programs(storage: str) -> list[Program]:
    """What there is to show: one TensorBoard on all trials, and an optuna-dashboard for each search, since it
    reads one journal.

    Raises:
        ConfigError: the storage is no folder of this machine; the message says what to do.
        MissingFileError: there is no folder, or nothing to show in it.
        ResourceError: a package is missing.
    """
    root = Storage(storage).root
    if "://" in root:
        raise ConfigError(
            f"{root} is not on this machine, and TensorBoard and optuna-dashboard read files. Copy it first: "
            f"bearray jobs fetch --storage {root} --to DIR, then bearray dashboard DIR. A search's "
            "journal is then "
            "in ~/.cache/bearray/optuna of the machine that ran the sweep: optuna-dashboard JOURNAL there"
        )
    folder = Path(root)
    if not folder.is_dir():
        raise MissingFileError(f"there is no folder {root}")
    sweeps = _sweeps(folder)
    found: list[Program] = []
    if any((sweep / "tune").is_dir() for sweep in sweeps):
        logs = folder / "tune" if folder in sweeps else folder  # parts that begin later are in it, too
        found.append(
            Program("TensorBoard", "tensorboard", ("--logdir", str(logs), "--host", HOST, "--port", "{port}"))
        )
    for sweep in sweeps:
        for journal in sorted(sweep.glob("optuna/*.log")):
            kind = ("--storage-class", "JournalFileStorage")
            arguments = (str(journal), *kind, "--host", HOST, "--port", "{port}")
            name = "/".join([*sweep.relative_to(folder).parts, journal.stem])
            found.append(Program(printable(f"Optuna, {name}"), "optuna-dashboard", arguments))
    if not found:
        raise MissingFileError(
            f"{root} holds neither tune/ nor optuna/*.log: no sweep has trained anything there yet"
        )
    for program in found:
        if not entry_points(group="console_scripts", name=program.command):
            raise ResourceError(
                f"{program.command} is not installed, though bearray asks for it: pip install -c "
                "constraints.txt -e ."
            )
    return found


def _sweeps(folder: Path) -> list[Path]:
    """The folder itself; of the paper's storage, that of each sweep in it."""
    storage = Storage(str(folder))
    return [folder / name for name in sweeps_in(storage)] if storage.exists(RECORD) else [folder]


@contextmanager
def running(chosen: Sequence[Program]) -> Iterator[list[Running]]:
    """While it lasts, the dashboards run and answer; at its end they and all their processes are gone.

    Raises:
        ResourceError: one does not start.
    """
    with ExitStack() as stack:
        ports = _free_ports(len(chosen))
        each = zip(chosen, ports, strict=True)
        dashboards = [stack.enter_context(_started(program, port)) for program, port in each]
        for dashboard in dashboards:
            until = time.monotonic() + START_SECONDS
            while not _listens(dashboard.port):
                trouble = dashboard.trouble()
                if trouble is None and time.monotonic() > until:
                    trouble = f"{dashboard.title} does not listen after {START_SECONDS:.0f} s"
                if trouble is not None:
                    raise ResourceError(trouble)
                time.sleep(_POLL)
        yield dashboards


@contextmanager
def _started(program: Program, port: int) -> Iterator[Running]:
    arguments = [
        argument.format(port=port) if argument == "{port}" else argument for argument in program.arguments
    ]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN, program.command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches us alone, and its own children end with it
        )
        try:
            yield Running(program.title, port, process, log)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children."""
    for number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
            process.wait(seconds)
        except ProcessLookupError:  # the whole group is gone
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, each another."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0
