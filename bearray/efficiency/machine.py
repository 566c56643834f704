"""The machine that something was measured on, as far as it can change a result."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bearray.config import differences
from bearray.errors import ResumeError
from bearray.provenance import versions

if TYPE_CHECKING:
    import torch


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Processor, cores, threads, GPU and versions of this process."""
    import torch  # reports read this file's other functions without it

    cuda = device.type == "cuda"
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": _cpu_name(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "versions": versions(),
    }


def load_average() -> float | None:
    """Processes that wanted to run over the last minute; None where the system does not tell."""
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return None


def check_same_machine(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Times of two machines must not be mixed.

    Raises:
        ResumeError: it is another machine, other threads or other versions; the message says which.
    """
    changed = differences(before, now)
    if changed:
        raise ResumeError(
            f"earlier rounds were measured on another machine or with other versions: {'; '.join(changed)}; "
            "choose another --storage"
        )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
