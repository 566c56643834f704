"""Fixtures of the paper."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bearray.paper.config import PaperConfig, defaults
from bearray.tuning.config import SMOKE


@pytest.fixture
def smoke(tmp_path: Path) -> PaperConfig:
    return replace(defaults().at_scale("smoke", SMOKE), storage=str(tmp_path / "paper"))
