"""Memory, energy and the machine: what they report, and what they do where they cannot."""

from __future__ import annotations

import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from bearray.efficiency import energy, memory
from bearray.efficiency.energy import EnergyMeter, check_energy
from bearray.efficiency.machine import check_same_machine, machine_facts
from bearray.efficiency.memory import peak_memory
from bearray.errors import ConfigError, ResumeError

CPU = torch.device("cpu")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc")
def test_peak_memory_is_what_was_held_at_once() -> None:
    size = 96 * 2**20
    with peak_memory(CPU) as peak:
        first = torch.ones(size, dtype=torch.uint8)
        del first
        second = torch.ones(size, dtype=torch.uint8)
        del second
    assert peak.above is not None and peak.total is not None
    assert 0.9 * size < peak.above < 1.6 * size < 1.6 * size + peak.total
    with peak_memory(CPU) as after:
        pass
    assert after.above is not None and after.above < 0.3 * size  # an earlier peak is forgotten


def test_where_the_system_does_not_tell_there_is_no_peak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_PROCESS", tmp_path / "no-such-folder")
    with peak_memory(CPU) as peak:
        torch.ones(10)
    assert (peak.above, peak.total) == (None, None)


def test_energy_without_codecarbon_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'bearray\[energy\]'"):
        check_energy()
    meter = EnergyMeter(enabled=False)
    meter.begin()
    assert meter.end() is None and meter.sources() == []


def test_energy_is_codecarbons_in_joules(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tracker:
        def __init__(self, **_: Any) -> None:
            self._hardware = ["CPU(rapl)"]

        def start_task(self, name: str) -> None:
            self.name = name

        def stop_task(self) -> Any:
            return types.SimpleNamespace(energy_consumed=1e-6 * int(self.name.split()[-1]))

    fake = types.ModuleType("codecarbon")
    fake.OfflineEmissionsTracker = Tracker  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "codecarbon", fake)
    monkeypatch.setattr(energy.importlib.util, "find_spec", lambda name: object())
    meter = EnergyMeter(enabled=True)
    found = []
    for _ in range(2):
        meter.begin()
        found.append(meter.end())
    assert found == pytest.approx([3.6, 7.2])
    assert meter.sources() == ["CPU(rapl)"] and meter.meters
    other = EnergyMeter(enabled=True, here=False)  # a second worker on the same machine
    other.begin()
    assert other.end() is None and other.sources() == [] and other.enabled and not other.meters


def test_energy_of_half_a_second_for_real() -> None:
    """With CodeCarbon itself; which sensors there are, and so how much, depends on the machine."""
    pytest.importorskip("codecarbon", reason="CodeCarbon is not installed (pip install -e '.[energy]')")
    meter = EnergyMeter(enabled=True)
    meter.begin()
    end = time.perf_counter() + 0.5
    while time.perf_counter() < end:
        pass
    joules = meter.end()
    assert joules is not None and 0 < joules < 1e5
    assert meter.sources()


def test_another_machine_is_refused_with_what_differs() -> None:
    here = machine_facts(CPU)
    check_same_machine(here, machine_facts(CPU))
    with pytest.raises(ResumeError, match=r"threads: .* -> 64"):
        check_same_machine(here, {**here, "threads": 64})
