"""All inputs of one reader, in a process of its own with bounded memory.

The process is killed and counted where it hangs in native code or dies, and another one goes on behind that
input.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import random
import resource
import shutil
import signal
import tempfile
from contextlib import nullcontext, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bearray.errors import BearrayError
from tests.fuzz.harness import WAIT_S, Outcome, attempt
from tests.fuzz.reader import Reader
from tests.fuzz.readers import READERS, quiet

MEMORY = 6 << 30
"""Bytes of address space that a reader's process may have beyond what its libraries take."""


def work(name: str, seed: int, numbers: range, pipe: Connection, scratch: str) -> None:
    """A reader's process: an outcome for each number."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says what happens
    os.dup2(os.open(f"{scratch}/stderr", os.O_WRONLY | os.O_CREAT), 2)
    os.dup2(2, 1)
    quiet()
    import torch

    torch.set_num_threads(1)
    reader = by_name(name)
    place = Path(scratch)
    sample = place / "sample"
    sample.mkdir()
    reader.make(sample)
    (place / "warm").mkdir()
    warm = Path(shutil.copytree(sample, place / "warm" / "input"))
    with suppress(BearrayError) if reader.draws else nullcontext():
        reader.read(warm, random.Random(0))  # the sample is good, and what is loaded once is loaded
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    pipe.send("ready")
    for number in numbers:
        pipe.send((number, attempt(reader, sample, place / "now", random.Random(f"{name} {seed} {number}"))))
    pipe.close()


def last_words(scratch: str) -> str:
    lines = (Path(scratch) / "stderr").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no message"


def by_name(name: str) -> Reader:
    return next(reader for reader in READERS if reader.name == name)


def run_reader(name: str, seed: int, numbers: range, keep: Path | None) -> list[tuple[int, Outcome]]:
    """All inputs of a reader; a process that hangs or dies is replaced by one that goes on behind it."""
    found: list[tuple[int, Outcome]] = []
    while len(found) < len(numbers):
        with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
            here, there = mp.Pipe(duplex=False)
            context: Any = mp.get_context("spawn")
            process = context.Process(
                target=work, args=(name, seed, numbers[len(found) :], there, scratch), daemon=True
            )
            process.start()
            there.close()
            ready = False
            try:
                while here.poll(WAIT_S + 60):
                    message = here.recv()
                    ready = True
                    if message != "ready":
                        found.append(message)
                else:
                    raise TimeoutError
            except (EOFError, TimeoutError) as error:
                hung = isinstance(error, TimeoutError)
                if process.is_alive() and hung:
                    process.kill()
                process.join()
                if not ready:
                    raise SystemExit(
                        f"{name}: its good sample cannot be read: {last_words(scratch)}"
                    ) from error
                if len(found) < len(numbers):
                    what = (
                        "hang in native code"
                        if hung
                        else f"process died with {process.exitcode}: {last_words(scratch)}"
                    )
                    found.append((numbers[len(found)], Outcome("defect", what)))
            if keep is not None and (Path(scratch) / "now").exists():
                shutil.copytree(Path(scratch) / "now", keep / name, symlinks=True, dirs_exist_ok=True)
    return found
