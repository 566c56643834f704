"""A whole sweep as a process of its own, the way `python sweeps/NAME.py` is one, with gates on its way.

    python -m tests.faults.sweep_process GATES --data-dir DIR --base-model DIR --storage DIR

GATES is a folder. Every point that the sweep's processes pass is a line in its `passed` file, with the
process that was there, so that work done twice can be counted. A point that is named in `closed` is not
passed before there is a file `open`: whoever is there waits, to be killed or interrupted in that moment.

What loads a model's libraries is imported within functions, since trials' drivers read this module, too.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bearray.config import override
from bearray.tuning.config import SearchConfig, SweepConfig
from tests.conftest import MICRO_RUN
from tests.faults.waiting import wait_for

GATES = "BEARRAY_TEST_GATES"
PR_SET_CHILD_SUBREAPER = 36
EPOCHS = 3
TRIALS = 2
STEPS = 3 * EPOCHS
ROOT = Path(__file__).resolve().parents[2]
OWN_ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
"""Ray's workers are nice to others by default, so that beside busy processes they would hardly run."""


@dataclass(frozen=True)
class Gates:
    """The points that a sweep passes."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def close(self, *points: str) -> None:
        """Let nobody pass these points, instead of those that were closed before."""
        (self.folder / "open").unlink(missing_ok=True)
        (self.folder / "closed").write_text("\n".join(points))

    def open(self) -> None:
        (self.folder / "open").touch()

    def reach(self, point: str) -> None:
        """Called by the sweep's processes."""
        with (self.folder / "passed").open("a") as file:
            file.write(json.dumps({"point": point, "pid": os.getpid()}) + "\n")
        closed = self.folder / "closed"
        while closed.exists() and point in closed.read_text().split("\n"):
            if (self.folder / "open").exists():
                return
            time.sleep(0.05)

    def passed(self) -> list[dict[str, Any]]:
        path = self.folder / "passed"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def count(self) -> Counter[str]:
        return Counter(line["point"] for line in self.passed())

    def waiting(self, point: str, since: int = 0) -> int | None:
        """The process that has reached a point after so many passed ones."""
        found = [line["pid"] for line in self.passed()[since:] if line["point"] == point]
        return found[-1] if found else None


def gates_here() -> Gates:
    return Gates(Path(os.environ[GATES]))


def name_of(loop: Any) -> str:
    """A trial by its lambda, since that is what a search draws."""
    return f"{loop.config.objective.lam:.6f}"


def gated_train_loop(settings: dict[str, Any]) -> None:
    from bearray.training.loop import Loop
    from bearray.training.worker import train_loop

    step_as_it_is = Loop.train_step

    def train_step(loop: Loop, step: int, batch: Any) -> None:
        gates_here().reach(f"step {step} of {name_of(loop)}")
        gates_here().reach(f"step {step} of run {run_number(gates_here(), name_of(loop))}")
        step_as_it_is(loop, step, batch)

    Loop.train_step = train_step  # type: ignore[method-assign]
    train_loop(settings)


def run_number(gates: Gates, name: str) -> int:
    """Which run this is, in the order in which they began."""
    names = [line["point"].split(" of ")[1] for line in gates.passed() if line["point"].startswith("step")]
    return list(dict.fromkeys(n for n in names if not n.startswith("run"))).index(name)


def gated_drive(space: dict[str, Any], **about: Any) -> None:
    """A trial's driver."""
    from bearray.training import trainer
    from bearray.tuning import search

    trainer.train_loop = gated_train_loop
    gates_here().reach("trial")
    search._drive(space, **about)


def micro_sweep() -> SweepConfig:
    changes = {"train.epochs": EPOCHS, "train.lr": 0.03, "train.cpus_per_worker": 0.9}
    changes |= {"evaluation.also_other_normalizer": False}
    return SweepConfig(
        methods=("bear",),
        search=SearchConfig(trials=TRIALS, max_concurrent=1),
        report=False,
        run=override(SweepConfig().run, {**MICRO_RUN, **changes}),
    )


def main() -> None:
    """The process: everything beside the gates is the product's."""
    from bearray.evaluation import evaluate
    from bearray.tuning import main as command_line
    from bearray.tuning import search, sweep
    from tests.faults.gated_decoder import GatedDecoder

    os.environ[GATES] = sys.argv[1]
    with_parameters = search.tune.with_parameters
    search.tune.with_parameters = lambda _, **about: with_parameters(gated_drive, **about)
    evaluate.ShardDecoder = GatedDecoder  # type: ignore[misc]
    connect = sweep.connect

    def gated_connect(address: str | None = None) -> None:
        gates_here().reach("preparation")
        connect(address)
        gates_here().reach("connected")

    sweep.connect = gated_connect
    command_line.main(micro_sweep, sys.argv[2:])


@dataclass
class SweepProcess:
    """One call of the sweep's command."""

    process: subprocess.Popen[str]
    log: Path
    gates: Gates
    since: int
    """Points passed before it began."""
    own: set[int] = field(default_factory=set)
    """All processes that it has ever been seen to have started, itself included."""

    @property
    def output(self) -> str:
        return self.log.read_text()

    def until(self, point: str) -> int:
        """Wait until one of its processes is at a point; which."""

        def there() -> int | None:
            assert self.process.poll() is None, f"it has ended before {point!r}:\n{self.output}"
            return self.gates.waiting(point, self.since)

        found: int = wait_for(there, f"process at {point!r}", 900)
        self.look()
        return found

    def look(self) -> None:
        """Note what it has started so far."""
        try:
            me = psutil.Process(self.process.pid)
            self.own |= {me.pid, *(child.pid for child in me.children(recursive=True))}
        except psutil.NoSuchProcess:
            pass

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait(900)

    def kill(self) -> None:
        """Kill the driver, and wait until its cluster has noticed."""
        self.look()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)
        wait_for(lambda: not self.left(), "end of what the killed driver had started")

    def left(self) -> list[str]:
        """Processes of its own that are still there."""
        found = []
        for pid in self.own:
            if pid != self.process.pid:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)  # Ray's workers live as long as their raylet is not reaped
            try:
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline())[:200])
            except psutil.NoSuchProcess:
                continue
        return found


Start = Callable[..., SweepProcess]


@contextmanager
def starting(gates: Gates, arguments: Sequence[str], logs: Path) -> Iterator[Start]:
    """`start()` begins the sweep, the same command each time; what is left of it at the end is killed."""
    started: list[SweepProcess] = []
    # What a killed driver leaves is ours to reap: not every container has an init that would.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def start(prefix: Sequence[str] = ()) -> SweepProcess:
        log = logs / f"sweep-{len(started)}.log"
        command = [*prefix, sys.executable, "-m", "tests.faults.sweep_process", str(gates.folder), *arguments]
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | OWN_ENVIRONMENT,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # a terminal's Ctrl-C goes to a whole group: it has one of its own
            )
        started.append(SweepProcess(process, log, gates, len(gates.passed())))
        return started[-1]

    try:
        yield start
    finally:
        for sweep in started:
            if sweep.process.poll() is None:
                sweep.kill()


if __name__ == "__main__":  # by its module's name, so that other processes can import what is sent to them
    from tests.faults import sweep_process

    sweep_process.main()
