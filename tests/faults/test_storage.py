"""The storage is full, then read-only, while a sweep is at work: a real file system of its own is made so."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.checks import Find, assert_as_undisturbed
from tests.faults.sweep_process import Gates, SweepProcess, starting

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

MOUNTED = "mounted"


class Disk:
    """A small file system in memory, in a mount namespace that lives as long as one waiting process.

    Everybody sees it below /proc/PID/root, so that neither the sweep nor its Ray need to be in the namespace.
    """

    def __init__(self, holder: int, mount: Path) -> None:
        self.holder, self.mount = holder, mount
        self.path = Path(f"/proc/{holder}/root{mount}")

    def remount(self, options: str) -> None:
        enter = ["nsenter", "--target", str(self.holder), "--mount", "--user", "--preserve-credentials"]
        if os.geteuid() == 0:
            enter = ["nsenter", "--target", str(self.holder), "--mount"]
        subprocess.run([*enter, "mount", "-o", f"remount,{options}", str(self.mount)], check=True)

    def fill(self, name: str) -> Path:
        """Write a file until there is no space left."""
        filler = self.path / name
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError) as full:
            while True:
                file.write(b"\0" * 4096)
        assert full.value.errno == errno.ENOSPC
        return filler


@contextmanager
def disk(mount: Path) -> Iterator[Disk]:
    mount.mkdir()
    own = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    script = f'mount -t tmpfs -o size=64m tmpfs "{mount}" && echo {MOUNTED} && read _'
    with subprocess.Popen(
        [*own, "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None and holder.stderr is not None
        told = holder.stdout.readline().strip()
        if told != MOUNTED:  # nothing else fails every write, also root's
            pytest.skip(f"this machine lets nobody mount a file system: {holder.stderr.read()}")
        try:
            yield Disk(holder.pid, mount)
        finally:
            holder.kill()


def assert_stopped(sweep: SweepProcess, disk: Disk, words: str) -> None:
    """One line that names the storage and what is wrong with it."""
    assert sweep.wait() == 2, sweep.output
    last = sweep.output.strip().splitlines()[-1]
    assert last.startswith(f"error: {disk.path} cannot be written: {words}"), sweep.output
    assert "run the same command again to continue" in last
    assert "Traceback" not in sweep.output, sweep.output


def test_a_storage_that_fills_up_and_one_that_turns_read_only(
    demo_dir: Path, micro_base: Path, tmp_path: Path, undisturbed: Find
) -> None:
    gates = Gates(tmp_path / "gates")
    with disk(tmp_path / "disk") as small:
        arguments = [
            "--data-dir",
            str(demo_dir),
            "--base-model",
            str(micro_base),
            "--storage",
            str(small.path),
        ]
        with starting(gates, arguments, tmp_path) as start:
            gates.close("step 4 of run 0")
            sweep = start()
            sweep.until("step 4 of run 0")
            filler = small.fill("filler")
            gates.open()
            assert_stopped(sweep, small, "No space left on device; make room")
            assert not [f for f in small.path.glob("runs/*/result.json") if '"finished"' in f.read_text()]

            more = small.fill("more")  # what the run had not finished has left some room
            refused = start()
            assert refused.wait() == 2
            (line,) = refused.output.strip().splitlines()  # while there is no room, nothing is begun
            assert line.startswith("error: cannot write ") and "No space left on device; make room" in line

            filler.unlink()
            more.unlink()
            gates.close("step 4 of run 1")
            sweep = start()
            sweep.until("step 4 of run 1")
            small.remount("ro")
            gates.open()
            assert_stopped(sweep, small, "Read-only file system; mount it writable")

            small.remount("rw")
            gates.close()
            sweep = start()
            assert sweep.wait() == 0, sweep.output
        assert_as_undisturbed(str(small.path), undisturbed)
        assert not list(small.path.rglob("*.tmp"))
    # Finished epochs were not made again.
    assert max(gates.count()[f"step {step} of run 0"] for step in range(3)) == 1
    assert max(gates.count()[f"step {step} of run 1"] for step in range(3)) == 1
