"""Peak memory of a piece of work, above what was in use before it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


@dataclass
class Peak:
    """Filled in when the work is done; None where the machine does not tell."""

    above: int | None = None
    """Bytes in use at most, minus those in use before."""
    total: int | None = None
    """Bytes in use at most: of tensors on a GPU, of the whole process on a CPU."""


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Watches the memory of a CUDA device (tensors), or of this process (resident set; Linux only)."""
    peak = Peak()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        torch.cuda.synchronize(device)
        peak.total = torch.cuda.max_memory_allocated(device)
        peak.above = peak.total - before
        return
    resident = _reset_peak_resident()
    yield peak
    highest = _status("VmHWM") if resident is not None else None
    if resident is not None and highest is not None:
        peak.total, peak.above = highest, max(0, highest - resident)


def _reset_peak_resident() -> int | None:
    """Make the kernel forget the process's peak; bytes resident now, None where that cannot be done."""
    try:
        # What freed tensors left in the heap would be used again and hide the next peak.
        ctypes.CDLL(None).malloc_trim(0)
        (_PROCESS / "clear_refs").write_text("5")
    except (OSError, AttributeError):  # no Linux, no glibc, or a container that forbids it
        return None
    return _status("VmRSS")


def _status(field: str) -> int | None:
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith(f"{field}:")]
    return int(found[0][1]) * 1024 if found else None
