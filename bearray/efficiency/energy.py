"""Energy of a piece of work, by CodeCarbon (the extra `energy`)."""

from __future__ import annotations

import importlib.util
from typing import Any

from bearray.errors import ConfigError

JOULES_PER_KWH = 3.6e6


def check_energy() -> None:
    """Fail early where energy is asked for and cannot be measured.

    Raises:
        ConfigError: CodeCarbon is not installed.
    """
    if importlib.util.find_spec("codecarbon") is None:
        raise ConfigError("--energy needs CodeCarbon, which is not installed: pip install 'bearray[energy]'")


class EnergyMeter:
    """Joules between `begin` and `end`, of the whole machine (all its CPUs, memory and GPUs).

    Args:
        enabled: False measures nothing, on no machine.
        here: this process is the one that meters its machine; of the workers of a node only one does.
    """

    def __init__(self, *, enabled: bool, here: bool = True) -> None:
        self.enabled = enabled
        self._tracker: Any = None
        self._turn = 0
        if enabled and here:
            check_energy()
            from codecarbon import OfflineEmissionsTracker

            # The country decides the emissions, which are not used; so nothing is asked of the network.
            self._tracker = OfflineEmissionsTracker(
                country_iso_code="USA", save_to_file=False, log_level="error", allow_multiple_runs=True
            )

    def begin(self) -> None:
        if self._tracker is not None:
            self._turn += 1
            self._tracker.start_task(f"turn {self._turn}")

    def end(self) -> float | None:
        """Joules since `begin`; None where this process does not meter."""
        if self._tracker is None:
            return None
        return float(self._tracker.stop_task().energy_consumed) * JOULES_PER_KWH

    @property
    def meters(self) -> bool:
        """Whether this process meters its machine."""
        return self._tracker is not None

    def sources(self) -> list[str]:
        """Where CodeCarbon has its numbers from: a sensor, or an estimate by the processor's name."""
        if self._tracker is None:
            return []
        return [str(part) for part in getattr(self._tracker, "_hardware", [])]
