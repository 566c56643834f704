"""Fixtures of tests that do harm: the smallest run, and what it comes to when nothing happens to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bearray.config import RunConfig, config_hash
from tests.faults.helpers import FAULT_RUN, Undisturbed, undisturbed_run


@pytest.fixture(scope="session")
def fault_run(make_run: Callable[..., Any]) -> Callable[..., Any]:
    """`fault_run({"train.seed": 1})`: the run of these tests, with changes."""
    return lambda changes=None: make_run({**FAULT_RUN, **(changes or {})})


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[RunConfig], Undisturbed]:
    """`undisturbed(config)`: what a run comes to, computed once a session for each config."""
    known: dict[str, Undisturbed] = {}

    def find(config: RunConfig) -> Undisturbed:
        key = config_hash(config)
        if key not in known:
            known[key] = undisturbed_run(config, tmp_path_factory.mktemp("undisturbed"))
        return known[key]

    return find
