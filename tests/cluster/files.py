"""The cluster files as the tests read them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"


def pinned(name: str) -> str:
    """The version of a package in constraints.txt, where it is the same for all Pythons."""
    found = re.findall(rf"^{name}==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    assert len(found) == 1, f"constraints.txt has {found} for {name}"
    return str(found[0])


def project_version() -> str:
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert found is not None
    return found[1]
