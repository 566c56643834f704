"""A data set with awkward titles, a base model of a few thousand parameters built from it, its tokenizer."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bearray.backbones.pretrain import BaseSize
from bearray.data import Dataset, open_dataset

MICRO = BaseSize(
    name="micro", hidden=32, layers=1, heads=2, kv_heads=1, intermediate=64, vocab_size=420, context=64,
    batch_blocks=2, max_steps=8, lr=1e-2, threads=1,
)  # fmt: skip
"""The smallest stand-in; builds in less than a second."""

TITLES = {
    1: "Harry &amp; the Stone",
    2: 'The "Quoted" One',
    3: '"Starts with a quote',
    4: 'Ends with a quote"',
    5: "Café Ünïcode 日本語 🎉",
    6: "Harry & the Stone II",
    7: "Never <|end_of_text|> stop",
    8: "  Spaces   inside ",
    9: "Harry",
    10: "Harry, Part 2",
    11: "zebrafish aquarium",  # only in the validation split
    12: "quokka calendar",  # only in the test split
}
TRAIN = [
    (1, [1, 2, 3, 4, 5], 1),
    (1, [2, 3, 4, 5, 6], 2),
    (1, [3, 4, 5, 6, 7], 3),
    (2, [8, 9, 10, 1, 6], 3),
    (3, [5, 4, 3, 2, 1], 4),
    (3, [9, 10, 8, 7, 6], 4),
]


def write_data(folder: Path, valid_history: list[int] | None = None) -> Path:
    """The data set on disk; `valid_history` changes the validation split and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = {
        "train": TRAIN,
        "valid": [(4, [*(valid_history or [1, 2, 3, 4]), 11], 5)],
        "test": [(5, [1, 6, 9, 10, 12], 6)],
    }
    items = pd.DataFrame({"item_id": list(TITLES), "title": list(TITLES.values())}).astype(
        {"item_id": "int32"}
    )
    items.to_parquet(folder / "items.parquet")
    for name, rows in splits.items():
        frame = pd.DataFrame(rows, columns=["user_id", "item_ids", "timestamp"])
        frame["user_id"] = frame["user_id"].astype("int32")
        frame.to_parquet(folder / f"sequences_{name}.parquet")
    return folder


@pytest.fixture(scope="session")
def awkward_data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(write_data(tmp_path_factory.mktemp("awkward") / "books"))


@pytest.fixture(scope="session")
def micro_folder(awkward_data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from bearray.backbones.tiny import build_base_model

    return build_base_model(awkward_data, MICRO, cache_dir=tmp_path_factory.mktemp("cache"), progress=False)
