"""All checks, one after the other; none can end the others."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bearray.doctor import access, hardware, software
from bearray.doctor.finding import Finding


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to look at beyond this machine, and how closely."""

    storage: str | None = None
    """A storage path to write to."""
    cluster: bool = False
    """Ask the running cluster what it has."""
    deep: bool = False
    """Compile DeepSpeed's operation, and start a node of Ray."""


def checks(options: Options) -> list[tuple[str, Callable[[], Finding]]]:
    """(what is looked at, the check), in the order in which they are made."""
    cache = Path(os.environ.get("BEARRAY_CACHE") or "~/.cache/bearray")
    found: list[tuple[str, Callable[[], Finding]]] = [
        ("Python", software.check_python),
        ("packages", software.check_packages),
        ("pinned versions", software.check_pins),
        ("C++ compiler", software.check_compiler),
        ("ninja", software.check_ninja),
        ("DeepSpeed", lambda: software.check_deepspeed(build=options.deep)),
        ("PyTorch", hardware.check_torch),
        ("CPU cores", hardware.check_cores),
        ("memory", hardware.check_memory),
        ("/dev/shm", hardware.check_shm),
        ("disk: here", lambda: hardware.check_disk(Path.cwd(), "here")),
        ("disk: cache", lambda: hardware.check_disk(cache, "cache")),
        ("disk: Ray", lambda: hardware.check_disk(Path(tempfile.gettempdir()), "Ray")),
        ("base models", access.check_hub),
        ("Ray", lambda: software.check_ray(start=options.deep)),
        ("Ray token", access.check_token),
    ]
    if options.storage is not None:
        storage = options.storage
        found.append(("storage", lambda: access.check_storage(storage)))
    if options.cluster:
        found.append(("cluster", access.check_cluster))
    return found


def diagnose(options: Options | None = None) -> Iterator[Finding]:
    """Findings, as they are made."""
    for name, check in checks(options or Options()):
        try:
            yield check()
        except Exception as error:  # a check that breaks is a finding, too, and the others go on
            yield Finding(
                name,
                "warning",
                f"could not be checked: {type(error).__name__}: {error}",
                "please report this",
            )
