"""Runs with soft tokens, from a SASRec of a second."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

SMALL = {
    "model.soft.sasrec.hidden": 8,
    "model.soft.sasrec.layers": 1,
    "model.soft.sasrec.train.epochs": 2,
    "model.soft.align_epochs": 2,
}


@pytest.fixture(scope="package", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache stays as it is; worker processes are told by the environment."""
    before = os.environ.get("BEARRAY_CACHE")
    os.environ["BEARRAY_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["BEARRAY_CACHE"]
    else:
        os.environ["BEARRAY_CACHE"] = before


@pytest.fixture(scope="session")
def soft_run(make_run: Callable[..., Any]) -> Callable[..., Any]:
    """`soft_run("llara", {"train.epochs": 3})`: the smallest run of a backbone, with changes."""
    return lambda backbone, changes=None: make_run({"model.backbone": backbone, **SMALL, **(changes or {})})
