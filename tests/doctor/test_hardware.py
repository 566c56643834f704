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


def fake_torch(*, gpus: list[tuple[float, float]], bf16: bool = True, cuda: str | None = "13.0") -> Any:
    return SimpleNamespace(
        __version__="2.13.0",
        version=SimpleNamespace(cuda=cuda),
        cuda=SimpleNamespace(
            is_available=lambda: bool(gpus),
            device_count=lambda: len(gpus),
            get_device_properties=lambda number: SimpleNamespace(name=f"Card {number}"),
            mem_get_info=lambda number: tuple(int(x * GIB) for x in gpus[number]),
            is_bf16_supported=lambda including_emulation: bf16,
        ),
    )


@pytest.mark.parametrize(
    ("gpus", "bf16", "status", "text"),
    [
        ([(70, 80)], True, "ok", "Card 0 (70 of 80 GiB free), bfloat16"),
        ([(70, 80), (10, 80)], True, "warning", "Card 1 (10 of 80 GiB free)"),
        ([(14, 16)], False, "warning", "without bfloat16"),
    ],
)
def test_gpus(
    monkeypatch: pytest.MonkeyPatch, gpus: list[tuple[float, float]], bf16: bool, status: str, text: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch", fake_torch(gpus=gpus, bf16=bf16))
    found = hardware.check_torch()
    assert found.status == status and text in found.text and bool(found.mend) == (status != "ok")


@pytest.mark.parametrize(
    ("driver", "cuda", "status", "text"),
    [
        (None, None, "note", "no GPU"),
        (
            "GPU 0: Card\nGPU 1: Card\n",
            None,
            "warning",
            "built without CUDA, but the machine has 2 NVIDIA GPUs",
        ),
        ("GPU 0: Card\n", "13.0", "warning", "cannot use it, but the machine has 1 NVIDIA GPU"),
        ("No devices were found\n", "13.0", "note", "no GPU"),
    ],
)
def test_a_gpu_that_pytorch_does_not_see(
    monkeypatch: pytest.MonkeyPatch, driver: str | None, cuda: str | None, status: str, text: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch", fake_torch(gpus=[], cuda=cuda))
    monkeypatch.setattr(shutil, "which", lambda name: driver and f"/bin/{name}")
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, driver, "")
    )
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
