"""GPU, cores, memory, disks."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from bearray.doctor.finding import Finding

GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")
SHM = Path("/dev/shm")
LITTLE_MEMORY, LITTLE_SHM, LITTLE_DISK = 4 * GIB, 2 * GIB, 10 * GIB
"""Below: a sweep with the tiny base model may not fit; Ray puts its objects on disk; results may not fit."""
OTHER_BUILD = (
    "install a PyTorch that fits the GPU and its driver: https://pytorch.org/get-started/locally has builds "
    "for several versions of CUDA, the older ones with kernels for older GPUs"
)


def check_torch() -> Finding:
    """PyTorch sees the GPU that is there, and can compute on it."""
    try:
        import torch
    except Exception as error:
        return Finding("PyTorch", "problem", f"cannot be imported: {error}", "reinstall it: make setup")
    if torch.cuda.is_available():
        return _gpus(torch)
    driver = _driver()
    if driver is not None:
        why = "is built without CUDA" if torch.version.cuda is None else "cannot use it"
        return Finding(
            "PyTorch", "warning", f"{torch.__version__} {why}, but the machine has {driver}", OTHER_BUILD
        )
    return Finding(
        "PyTorch",
        "note",
        f"{torch.__version__}, no GPU: enough for local:tiny and the demo, not for 1B models",
    )


def _gpus(torch: Any) -> Finding:
    names, broken, little = [], [], False
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        wrong = _why_not(torch, number)
        if wrong:
            broken.append(f"{facts.name} (GPU {number}): {wrong}")
            continue
        free, total = torch.cuda.mem_get_info(number)
        little = little or free < 0.5 * total
        names.append(f"{facts.name} ({free / GIB:.0f} of {total / GIB:.0f} GiB free)")
    driver = _driver()
    text = ", ".join([torch.__version__, *names, *([driver] if driver else [])])
    if broken:
        return Finding("PyTorch", "problem", f"{text}; cannot compute on {'; '.join(broken)}", OTHER_BUILD)
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        return Finding(
            "PyTorch",
            "warning",
            f"{text}; without bfloat16",
            "train with --model.dtype float32 (twice the memory), or on an Ampere or newer GPU",
        )
    if little:
        return Finding(
            "PyTorch", "warning", text, "other programs use the GPU; nvidia-smi shows which, end them first"
        )
    return Finding("PyTorch", "ok", f"{text}, bfloat16")


def _why_not(torch: Any, number: int) -> str | None:
    """Why PyTorch cannot compute on a GPU that it sees; None where it can."""
    major, minor = torch.cuda.get_device_capability(number)
    built = torch.cuda.get_arch_list()
    if built and not any(_runs(arch, major, minor) for arch in built):
        return (
            f"its compute capability is {major}.{minor}, and this PyTorch has kernels for {', '.join(built)}"
        )
    try:
        ones = torch.ones((16, 16), device=f"cuda:{number}")
        total = (ones @ ones).sum().item()
    except Exception as error:  # a driver that is too old, a GPU that has fallen off, no memory left
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return None if total == 16**3 else f"a product of matrices adds up to {total:g}, not {16**3}"


def _runs(arch: str, major: int, minor: int) -> bool:
    """Whether code built for `arch` runs on a GPU: sm_XY on X.Y and later X.*, compute_XY (compiled on first
    use) also on later generations; with a letter only on the GPU itself (a) or its family (f)."""
    kind, _, version = arch.partition("_")
    letter = version.lstrip("0123456789")
    digits = version[: len(version) - len(letter)]
    if kind not in ("sm", "compute") or len(digits) < 2:
        return True  # a name that this version does not know; the product will tell
    built = int(digits[:-1]), int(digits[-1])
    if letter == "a":
        return built == (major, minor)
    return built <= (major, minor) and (built[0] == major or (kind == "compute" and not letter))


def _driver() -> str | None:
    """The GPUs that the driver knows and its version, in words."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    versions = [line.strip() for line in done.stdout.splitlines() if line[:1].isdigit()]
    if done.returncode or not versions:
        return None
    return f"{len(versions)} NVIDIA GPU{'s' * (len(versions) != 1)} with driver {versions[0]}"


def check_cores() -> Finding:
    """CPUs that may be used, against those that are seen: Ray counts the latter."""
    seen, allowed = os.cpu_count() or 1, cpu_limit()
    if allowed is not None and allowed < seen - 0.5:
        return Finding(
            "CPU cores",
            "warning",
            f"{seen} are seen, but this container may use {allowed:g}",
            f"start Ray with what there is: ray start --head --num-cpus {max(1, int(allowed))}",
        )
    if seen < 2:
        return Finding(
            "CPU cores", "warning", "1", "a trial and its worker share it; expect twice the documented times"
        )
    return Finding("CPU cores", "ok", f"{seen}")


def check_memory() -> Finding:
    """Memory that is free, of the machine and of the container."""
    total, free = machine_memory()
    limit, used = memory_limit()
    text = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if limit is not None and limit < total:
        free = min(free, limit - used)
        text += f"; this container may use {limit / GIB:.1f} GiB, {free / GIB:.1f} are left"
    if free < LITTLE_MEMORY:
        return Finding(
            "memory",
            "warning",
            text,
            "end other programs, or give the container more; --evaluation.actors 1 and "
            "--search.max-concurrent 1 need the least",
        )
    return Finding("memory", "ok", text)


def check_shm() -> Finding:
    """Where Ray keeps its objects."""
    if not SHM.is_dir():
        return Finding("/dev/shm", "note", "does not exist here (not Linux); Ray uses files instead")
    free = shutil.disk_usage(SHM).free
    text = f"{free / GIB:.1f} GiB free"
    if free < LITTLE_SHM:
        return Finding(
            "/dev/shm", "warning", text, "Ray puts its objects on disk and is slow: docker run --shm-size=4g"
        )
    return Finding("/dev/shm", "ok", text)


def check_disk(place: Path, what: str) -> Finding:
    """Room and permission at a place that is or will be a folder."""
    name = f"disk: {what}"
    there = place.expanduser().absolute()
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK):
        return Finding(
            name, "problem", f"{place}: no permission to write to {there}", "choose another folder"
        )
    free = shutil.disk_usage(there).free
    text = f"{place}: {free / GIB:.1f} GiB free"
    if free < 0.1 * GIB:
        return Finding(name, "problem", text, "free some space")
    if free < LITTLE_DISK:
        return Finding(name, "warning", text, "free some space: checkpoints and base models take gigabytes")
    return Finding(name, "ok", text)


def machine_memory() -> tuple[int, int]:
    """(total, available) bytes."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = page * os.sysconf("SC_PHYS_PAGES")
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return total, int(line.split()[1]) * 1024
    except OSError:  # not Linux
        return total, total
    return total, page * os.sysconf("SC_AVPHYS_PAGES")


def memory_limit() -> tuple[int | None, int]:
    """(limit, used) bytes of this container; limit None where there is none. Version 2, then 1 of cgroups."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        value, current = _number(CGROUP / limit), _number(CGROUP / used)
        if value is not None:
            return value, current or 0
    return None, 0


def cpu_limit() -> float | None:
    """CPUs that this process may use: its affinity and its container's quota, whichever is less."""
    limits: list[float] = []
    if hasattr(os, "sched_getaffinity"):
        limits.append(len(os.sched_getaffinity(0)))
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
        if quota != "max":
            limits.append(int(quota) / int(period))
    except (OSError, ValueError):
        old_quota, old_period = (_number(CGROUP / "cpu" / f"cpu.cfs_{n}_us") for n in ("quota", "period"))
        if old_quota and old_period and old_quota > 0:
            limits.append(old_quota / old_period)
    return min(limits, default=None)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # not there, or "max"
        return None
