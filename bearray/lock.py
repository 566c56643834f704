"""One sweep at a time on a storage: a lease that works on folders, network file systems and object stores.

Whoever wants a storage writes a claim, a small file of its own below `.lock/`, and then looks at all claims.
A claim that is alive stops everybody else; two that see each other at the same moment both step back and try
again. Nothing more than files that are written whole and listed as they are is needed for that, so the same
few lines serve everywhere. The holder renews its claim as long as it lives.

A claim is dead when its process is gone, as far as this machine can tell, or when it was not renewed for
`LEASE_SECONDS`. Ages are differences between two times of the storage's own clock, so that hosts may disagree
about what time it is.
"""

from __future__ import annotations

import _thread
import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from bearray.errors import BusyError, DataError, MissingFileError, StorageError
from bearray.plain import Number, check_shape
from bearray.provenance import now
from bearray.runs import Storage

FOLDER = ".lock"
LEASE_SECONDS = 120.0
"""After so long without a sign of life, a claim of another machine is taken for dead."""
BEAT_SECONDS = 15.0
"""A claim is renewed this often."""
_TRIES = 10
_SHAPE = {
    "what": str, "host": str, "machine": str, "since": str, "born": Number(), "pid": Number(whole=True),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Who wants a storage, or has it."""

    what: str
    """What it does there: sweep, benchmark."""
    host: str
    machine: str
    """The machine, its boot and its process namespace: where all three agree, `pid` means the same."""
    pid: int
    born: float
    """When the process began, in seconds; tells it from a later one of the same number."""
    since: str

    @classmethod
    def mine(cls, what: str) -> Claim:
        return cls(
            what=what,
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            born=psutil.Process().create_time(),
            since=now(),
        )

    @property
    def gone(self) -> bool:
        """Its process is known to be no longer there; False where this machine cannot know."""
        if self.machine != _machine():
            return False
        try:
            process = psutil.Process(self.pid)
            return process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - self.born) > 1
        except psutil.NoSuchProcess:
            return True

    def __str__(self) -> str:
        return f"a {self.what} on {self.host}, process {self.pid}, since {self.since}"


def _machine() -> str:
    def told(read: Any) -> str:
        try:
            return str(read())
        except OSError:  # not Linux
            return "-"

    boot = told(lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    processes = told(lambda: os.stat("/proc/self/ns/pid").st_ino)
    return f"{socket.gethostname()}/{boot}/{processes}"


class _Lease:
    """This process's claim on a storage."""

    def __init__(self, storage: Storage, what: str) -> None:
        self.storage, self.claims = storage, storage.child(FOLDER)
        self.name = f"{uuid.uuid4().hex}.json"
        self.content = json.dumps(asdict(Claim.mine(what)), indent=2).encode()
        self.lost: str | None = None
        """Why the storage is no longer ours."""

    def beat(self) -> None:
        self.claims.write_bytes(self.name, self.content)

    def take(self) -> None:
        for attempt in range(_TRIES):
            self.beat()
            rival = self._rival()
            if rival is None:
                return
            self.claims.delete(self.name)
            if attempt == _TRIES - 1 or not rival.fresh:
                raise BusyError(self._refusal(rival))
            time.sleep(random.uniform(0.1, 0.6) * (attempt + 1))  # it may step back, too

    def _refusal(self, rival: _Rival) -> str:
        left = max(1.0, LEASE_SECONDS - rival.age)
        return (
            f"{self.storage.root} is in use by {rival.claim}; wait until it has ended, or choose another "
            f"--storage. If that process no longer lives, the storage is free in {left:.0f} seconds at the "
            "latest; nothing needs to be deleted"
        )

    def _rival(self) -> _Rival | None:
        """A living claim of somebody else; dead ones are cleared away."""
        written = self.claims.written()
        if self.name not in written:
            raise StorageError(f"{self.claims.root}/{self.name} was written and is not there")
        for name in sorted(written.keys() - {self.name}):
            age = written[self.name] - written[name]
            claim = self._read(name) if name.endswith(".json") else None  # else it is being written
            if claim is not None and not claim.gone and age < LEASE_SECONDS:
                return _Rival(claim, age)
            if claim is not None or age >= LEASE_SECONDS:
                self.claims.delete(name)
        return None

    def _read(self, name: str) -> Claim | None:
        try:
            content = self.claims.read_json(name)
            check_shape(content, {f"{field}!": shape for field, shape in _SHAPE.items()}, name)
            return Claim(**{field: content[field] for field in _SHAPE})
        except (MissingFileError, DataError):  # its owner has just left, or it is no claim
            return None

    def watch(self, stop: threading.Event) -> None:
        """Renew the claim until told to stop; interrupt the process when it is no longer there."""
        while not stop.wait(BEAT_SECONDS):
            try:
                if not self.claims.exists(self.name):
                    others = [c for n in self.claims.names() if (c := self._read(n)) is not None]
                    by = f"; it is now used by {others[0]}" if others else ""
                    self.lost = (
                        f"{self.storage.root} was taken from this process, which gave no sign of life for "
                        f"{LEASE_SECONDS:.0f} seconds{by}"
                    )
                    _thread.interrupt_main()
                    return
                self.beat()
            except (StorageError, OSError):
                continue  # a storage that fails for longer stops the work itself, which says why


@dataclass(frozen=True)
class _Rival:
    claim: Claim
    age: float
    """Seconds since its last sign of life; negative where that came after ours."""

    @property
    def fresh(self) -> bool:
        """It may have come at the same moment as we."""
        return self.age < 5


@contextmanager
def held(storage: Storage, what: str) -> Iterator[None]:
    """Have a storage to oneself for the length of the block; it is free again however the block ends.

    Args:
        storage: the folder or URI.
        what: what it is needed for: sweep, benchmark.

    Raises:
        BusyError: another process has it (who, where, since when), or took it while this one stood still.
        StorageError: it cannot be written.
    """
    lease = _Lease(storage, what)
    lease.take()
    stop = threading.Event()
    beating = threading.Thread(target=lease.watch, args=(stop,), daemon=True, name="bearray-lease")
    beating.start()
    try:
        yield
    except KeyboardInterrupt:
        if lease.lost is None:
            raise
        raise BusyError(lease.lost) from None
    finally:
        stop.set()
        beating.join()
        with suppress(StorageError, OSError):  # a storage that is gone; the lease ends by itself
            lease.claims.delete(lease.name)
