"""Write a data set: all of it, checked, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bearray.data.dataset import SPLITS, Split, open_dataset
from bearray.data.storage import new_folder
from bearray.data.windows import Windows
from bearray.errors import BearrayError


def items_table(
    item_ids: Sequence[int] | np.ndarray,
    titles: Sequence[str | None],
    source_ids: Sequence[str] | None = None,
) -> pa.Table:
    """The on-disk columns of items.parquet; `source_ids` are the ids of the user's own files."""
    columns = {"item_id": pa.array(item_ids, pa.int32()), "title": pa.array(titles, pa.string())}
    if source_ids is not None:
        columns["source_id"] = pa.array(source_ids, pa.string())
    return pa.table(columns)


def write_dataset(
    out: Path,
    items: pa.Table,
    splits: Mapping[Split, Windows],
    *,
    users: pa.Table | None = None,
    extra: Mapping[str, str] | None = None,
    force: bool = False,
) -> Path:
    """Write items.parquet, sequences_*.parquet and, if given, users.parquet (user_id, source_id).

    The files are written to a scratch folder beside `out`, opened with every check of `open_dataset`, and
    only
    then moved into place: a failure leaves neither a half-written `out` nor a damaged old one.

    Args:
        out: the folder to create.
        items: item_id, title and perhaps source_id.
        splits: the windows.
        users: user_id, source_id, where ids were mapped.
        extra: further text files by name.
        force: replace a folder that is not empty.

    Returns:
        The absolute path of the folder.

    Raises:
        DataError: `out` is not empty and `force` is not set, or the data fail a check.
        StorageError: the folder cannot be written.
    """
    with new_folder(out, force=force) as folder:
        pq.write_table(items, folder / "items.parquet")
        for split in SPLITS:
            pq.write_table(splits[split].to_table(), folder / f"sequences_{split}.parquet")
        if users is not None:
            pq.write_table(users, folder / "users.parquet")
        for name, text in (extra or {}).items():
            (folder / name).write_text(text, encoding="utf-8")
        try:
            open_dataset(folder)
        except BearrayError as error:  # the scratch folder's name would tell the user nothing
            raise type(error)(str(error).replace(str(folder), str(out))) from error
    return out.expanduser().absolute()
