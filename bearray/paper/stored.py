"""What is in a storage of the paper, for those who only look at it: nothing is loaded that computes."""

from __future__ import annotations

from typing import Any

from bearray.plain import check_shape
from bearray.runs import SWEEP, Storage, join

RECORD = "paper.json"
"""What was asked for last, and the data; the document reads both."""
BASELINES = "baselines"
"""Folder, below a data set's, of the recommenders that know items by number."""
DECODED = "decoded"
"""Folder, below a part's, of what D3 decodes."""
SENSITIVITY = "sensitivity"
"""Folder, below a part's, of the sweep with other values of lambda and xi."""
DOCUMENT = "paper/index.html"
"""Where the document is in the storage."""
_SHAPE = {"config!": dict, "data!": {"*": {"stats": dict, "content_hash": str}}}


def read_record(storage: Storage) -> dict[str, Any]:
    """paper.json: "config", what was asked for last, and "data", facts of each data set by its name.

    Raises:
        MissingFileError: there is none.
        DataError: it is damaged; the message names file, entry and value.
    """
    record = storage.read_json(RECORD)
    check_shape(record, _SHAPE, join(storage.root, RECORD))
    return record


def sweeps_in(storage: Storage) -> list[str]:
    """Folders of the sweeps that have begun, relative to the storage: each part's, and that of its other
    values of lambda and xi behind it.

    Raises:
        DataError: paper.json is damaged.
        StorageError: a data set's name leads out of the storage.
    """
    parts = [f"{name}/{part}" for name in read_record(storage)["data"] for part in storage.names(name)]
    folders = [folder for part in parts for folder in (part, f"{part}/{SENSITIVITY}")]
    return [folder for folder in folders if storage.exists(f"{folder}/{SWEEP}")]
