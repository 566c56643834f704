"""A data set whose next item is certain: 40 items in a circle, each followed by the one three further on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bearray.config import SASRecConfig, override
from bearray.data import Dataset

ITEMS = 40


def windows(count: int, seed: int, first_user: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    starts, lengths = rng.integers(0, ITEMS, count), rng.integers(3, 8, count)
    return pd.DataFrame(
        {
            "user_id": np.arange(first_user, first_user + count, dtype=np.int32),
            "item_ids": pd.Series(
                [
                    [int((s + 3 * k) % ITEMS) + 1 for k in range(n)]
                    for s, n in zip(starts, lengths, strict=True)
                ],
                dtype=object,
            ),
            "timestamp": np.arange(count, dtype=np.int64),
        }
    )


@pytest.fixture(scope="session")
def circle() -> Dataset:
    return Dataset(
        name="circle",
        path="nowhere",
        items=pd.DataFrame(
            {
                "item_id": np.arange(1, ITEMS + 1, dtype=np.int32),
                "title": [f"Title {i}" for i in range(1, ITEMS + 1)],
            }
        ),
        train=windows(300, 0, 0),
        valid=windows(60, 1, 1000),
        test=windows(60, 2, 2000),
        notes={},
        content_hash="c" * 64,
    )


@pytest.fixture(scope="session")
def small() -> SASRecConfig:
    """A SASRec that trains an epoch of the circle in a tenth of a second."""
    return override(
        SASRecConfig(),
        {
            "hidden": 16,
            "layers": 1,
            "max_history": 6,
            "train.epochs": 4,
            "train.batch_size": 64,
            "train.lr": 0.01,
        },
    )
