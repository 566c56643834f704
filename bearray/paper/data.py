"""The data sets of the paper's parts: opened, made or sampled, and put on record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bearray.config import to_dict
from bearray.data import Dataset, open_dataset
from bearray.data.demo import make_demo
from bearray.data.prompts import DOMAINS
from bearray.data.sample import all_users, sample_users
from bearray.data.summary import dataset_stats
from bearray.errors import ResumeError
from bearray.paper.config import DEMO, PaperConfig
from bearray.paper.parts import Part, sample_parts
from bearray.paper.stored import RECORD, read_record
from bearray.runs import Storage

_SMALL: dict[str, Any] = {"items": 200, "users": 300}
"""The demo of the smoke scale."""


def data_folder(config: PaperConfig, part: Part) -> Path:
    """Where a part's data set is, or will be."""
    made = Path(config.storage) / "data" / part.data_name
    return made if part.sampled or part.dataset == DEMO else Path(config.data_dir) / part.dataset


def domain(part: Part) -> str:
    """`data.domain` of a part: a sample speaks of its data set's kind of items."""
    return part.dataset if part.sampled and part.dataset in DOMAINS else "auto"


def prepare_data(config: PaperConfig) -> dict[str, Dataset]:
    """All data sets by name, samples included; what can be made is made.

    Raises:
        MissingFileError: a data set is not in config.data_dir.
        DataError: one is damaged, or a sample of it has an empty split.
        ResumeError: a sample was drawn with another number of users.
        StorageError: a folder cannot be written.
    """
    found = {}
    for name in config.datasets:
        whole = data_folder(config, Part(name, "", ""))
        if name == DEMO and not whole.exists():
            make_demo(whole, **(_SMALL if config.smoke else {}))
        found[name] = open_dataset(whole, strict=config.run.data.strict)
    for part in sample_parts(config):
        folder = data_folder(config, part)
        if not folder.exists():
            sample_users(found[part.dataset], config.sample_users, folder, seed=config.run.data.sample_seed)
        sample = found[part.data_name] = open_dataset(folder, strict=config.run.data.strict)
        drawn, wanted = len(all_users(sample)), min(config.sample_users, len(all_users(found[part.dataset])))
        if drawn != wanted:
            raise ResumeError(
                f"{folder} is a sample of {drawn:,} users, and --sample-users is {config.sample_users:,}; "
                "repeat the earlier number, or choose another --storage"
            )
    return found


def write_record(config: PaperConfig, datasets: dict[str, Dataset]) -> None:
    """STORAGE/paper.json; data sets of earlier calls stay in it.

    Raises:
        DataError: the earlier one is damaged.
    """
    storage = Storage(config.storage)
    before = read_record(storage)["data"] if storage.exists(RECORD) else {}
    now = {
        name: {"stats": dataset_stats(dataset), "content_hash": dataset.content_hash}
        for name, dataset in datasets.items()
    }
    storage.write_json(RECORD, {"config": to_dict(config), "data": before | now})
