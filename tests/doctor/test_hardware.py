"""GPU, cores, memory, disks: each check with a machine that has the fault."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bearray.doctor import hardware
from bearray.doctor.hardware import GIB

Usage = namedtuple("Usage", "total used free")


class Ones:
    """What `torch.ones` returns, of a GPU that computes, computes wrongly, or not at all."""

    def __init__(self, outcome: float | Exception) -> None:
        self.outcome = outcome

    def __matmul__(self, other: Ones) -> Ones:
        return self

    def sum(self) -> Ones:
        return self

    def item(self) -> float:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def fake_torch(
    *,
    gpus: list[tuple[float, float]],
    bf16: bool = True,
    cuda: str | None = "13.0",
    capability: tuple[int, int] = (9, 0),
    outcomes: dict[str, Any] | None = None,
    built: list[str] | None = None,
) -> Any:
    return SimpleNamespace(
        __version__="2.13.0",
        version=SimpleNamespace(cuda=cuda),
        ones=lambda shape, device: Ones((outcomes or {}).get(device, 4096.0)),
        cuda=SimpleNamespace(
            is_available=lambda: bool(gpus),
            device_count=lambda: len(gpus),
            get_device_capability=lambda number: capability,
            get_arch_list=lambda: ["sm_75", "sm_80", "sm_90", "sm_120"] if built is None else built,
            get_device_properties=lambda number: SimpleNamespace(name=f"Card {number}"),
            mem_get_info=lambda number: tuple(int(x * GIB) for x in gpus[number]),
            is_bf16_supported=lambda including_emulation: bf16,
        ),
    )


def fake_driver(monkeypatch: pytest.MonkeyPatch, says: str | None) -> None:
    """nvidia-smi; None: there is none."""
    monkeypatch.setattr(shutil, "which", lambda name: says and f"/bin/{name}")
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, says, "")
    )


@pytest.mark.parametrize(
    ("gpus", "bf16", "status", "text"),
    [
        ([(70, 80)], True, "ok", "Card 0 (70 of 80 GiB free), 2 NVIDIA GPUs with driver 580.65.06, bfloat16"),
        ([(70, 80), (10, 80)], True, "warning", "Card 1 (10 of 80 GiB free)"),
        ([(14, 16)], False, "warning", "without bfloat16"),
    ],
)
def test_gpus(
    monkeypatch: pytest.MonkeyPatch, gpus: list[tuple[float, float]], bf16: bool, status: str, text: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch", fake_torch(gpus=gpus, bf16=bf16))
    fake_driver(monkeypatch, "580.65.06\n580.65.06\n")
    found = hardware.check_torch()
    assert found.status == status and text in found.text and bool(found.mend) == (status != "ok")


def test_a_gpu_that_pytorch_has_no_kernels_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A V100 is seen, has no bfloat16, and float32 would not help: nothing runs on it."""
    torch = fake_torch(gpus=[(16, 16)], bf16=False, capability=(7, 0))
    torch.ones = lambda *_, **__: pytest.fail("its failed kernel would break later calls")
    monkeypatch.setitem(sys.modules, "torch", torch)
    fake_driver(monkeypatch, None)
    found = hardware.check_torch()
    assert found.status == "problem" and "float32" not in found.mend and "older GPUs" in found.mend
    assert (
        "Card 0 (GPU 0): its compute capability is 7.0, and this PyTorch has kernels for sm_75" in found.text
    )


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (RuntimeError("CUDA error: no kernel image\nCompile with"), "(GPU 1): CUDA error: no kernel image"),
        (4095.0, "(GPU 1): a product of matrices adds up to 4095, not 4096"),
    ],
)
def test_each_gpu_must_compute(monkeypatch: pytest.MonkeyPatch, outcome: Any, text: str) -> None:
    torch = fake_torch(gpus=[(70, 80), (70, 80)], outcomes={"cuda:1": outcome})
    monkeypatch.setitem(sys.modules, "torch", torch)
    fake_driver(monkeypatch, None)
    found = hardware.check_torch()
    assert found.status == "problem" and found.text.endswith(text) and "Card 0 (70 of 80" in found.text


@pytest.mark.parametrize(
    ("arch", "capability", "runs"),
    [
        ("sm_80", (8, 6), True),
        ("sm_86", (8, 0), False),
        ("sm_80", (9, 0), False),
        ("compute_80", (12, 0), True),
        ("compute_90", (8, 9), False),
        ("sm_90a", (9, 0), True),
        ("sm_100a", (10, 3), False),
        ("sm_100f", (10, 3), True),
        ("sm_100f", (12, 0), False),
        ("sm_120", (12, 1), True),
        ("gfx942", (9, 4), True),  # AMD: the product tells
    ],
)
def test_which_code_runs_where(arch: str, capability: tuple[int, int], runs: bool) -> None:
    assert hardware._runs(arch, *capability) is runs


@pytest.mark.parametrize(
    ("driver", "cuda", "status", "text"),
    [
        (None, None, "note", "no GPU"),
        (
            "470.1\n470.1\n",
            None,
            "warning",
            "built without CUDA, but the machine has 2 NVIDIA GPUs with driver 470.1",
        ),
        ("470.1\n", "13.0", "warning", "cannot use it, but the machine has 1 NVIDIA GPU with driver 470.1"),
        ("No devices were found\n", "13.0", "note", "no GPU"),
    ],
)
def test_a_gpu_that_pytorch_does_not_see(
    monkeypatch: pytest.MonkeyPatch, driver: str | None, cuda: str | None, status: str, text: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch", fake_torch(gpus=[], cuda=cuda))
    fake_driver(monkeypatch, driver)
    found = hardware.check_torch()
    assert found.status == status and text in found.text


@pytest.mark.parametrize(
    ("seen", "allowed", "status", "text"),
    [
        (16, 16.0, "ok", "16"),
        (16, None, "ok", "16"),
        (16, 4.0, "warning", "may use 4"),
        (1, 1.0, "warning", "1"),
    ],
)
def test_cores(
    monkeypatch: pytest.MonkeyPatch, seen: int, allowed: float | None, status: str, text: str
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: seen)
    monkeypatch.setattr(hardware, "cpu_limit", lambda: allowed)
    found = hardware.check_cores()
    assert found.status == status and text in found.text


@pytest.mark.parametrize(
    ("free", "limit", "status", "text"),
    [
        (20, (None, 0), "ok", "20.0 of 32.0 GiB free"),
        (20, (8 * GIB, GIB), "ok", "may use 8.0 GiB, 7.0 are left"),
        (20, (8 * GIB, 6 * GIB), "warning", "2.0 are left"),
        (3, (None, 0), "warning", "3.0 of 32.0 GiB free"),
        (20, (2**62, 0), "ok", "20.0 of 32.0 GiB free"),
    ],
)
def test_memory(
    monkeypatch: pytest.MonkeyPatch, free: int, limit: tuple[int | None, int], status: str, text: str
) -> None:
    monkeypatch.setattr(hardware, "machine_memory", lambda: (32 * GIB, free * GIB))
    monkeypatch.setattr(hardware, "memory_limit", lambda: limit)
    found = hardware.check_memory()
    assert found.status == status and text in found.text


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, (None, 0)),
        ({"memory.max": "max\n", "memory.current": "5\n"}, (None, 0)),
        ({"memory.max": "1000\n", "memory.current": "400\n"}, (1000, 400)),
        ({"memory/memory.limit_in_bytes": "2000", "memory/memory.usage_in_bytes": "1"}, (2000, 1)),
    ],
)
def test_memory_of_a_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], limit: tuple[int | None, int]
) -> None:
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    write(tmp_path, files)
    assert hardware.memory_limit() == limit


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "250000 100000\n"}, 2.5),
        ({"cpu.max": "1600000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
    ],
)
def test_cpus_of_a_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], limit: float
) -> None:
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    write(tmp_path, files)
    assert hardware.cpu_limit() == limit


def test_this_machine_has_memory() -> None:
    total, free = hardware.machine_memory()
    assert 0 < free <= total


def test_shm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hardware, "SHM", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(0, 0, 8 * GIB))
    assert hardware.check_shm().status == "ok"
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(0, 0, 64 * 2**20))
    found = hardware.check_shm()
    assert found.status == "warning" and "--shm-size" in found.mend
    monkeypatch.setattr(hardware, "SHM", tmp_path / "none")
    assert hardware.check_shm().status == "note"


@pytest.mark.parametrize(("free", "status"), [(0.05, "problem"), (5, "warning"), (50, "ok")])
def test_room_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: float, status: str) -> None:
    asked = []

    def usage(place: Path) -> Usage:
        asked.append(place)
        return Usage(0, 0, int(free * GIB))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    found = hardware.check_disk(tmp_path / "not" / "yet", "cache")
    assert found.status == status and found.check == "disk: cache" and asked == [tmp_path]


def test_a_disk_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    found = hardware.check_disk(tmp_path / "x", "here")
    assert found.status == "problem" and f"no permission to write to {tmp_path}" in found.text
