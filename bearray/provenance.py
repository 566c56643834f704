"""Where a result came from: versions, revision, time."""

from __future__ import annotations

import datetime
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "bearray",
    "torch",
    "transformers",
    "peft",
    "ray",
    "deepspeed",
    "optuna",
    "numpy",
    "pandas",
    "pyarrow",
)


CHANGED = "+changes"
"""Ends a revision whose source tree has uncommitted changes."""


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result; absent ones are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """The revision of the source tree, with "+changes" where it has uncommitted ones; None outside a
    checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        revision = _git(root, "rev-parse", "HEAD")
        return revision + (CHANGED if _git(root, "status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):  # no git here: a checkout copied to a node without it
        return None


def _git(root: Path, *arguments: str) -> str:
    run = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=True
    )
    return run.stdout.strip()


def made() -> dict[str, Any]:
    """What every result records about itself: versions, git revision and time of creation."""
    return {"versions": versions(), "git": git_revision(), "created": now()}


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
