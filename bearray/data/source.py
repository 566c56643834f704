"""Interactions and titles as a reader hands them over: codes into the ids of the user's own files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bearray.data.checks import INT32_MAX
from bearray.data.dataset import Split
from bearray.data.protocol import RATIO, Ratio, k_core, make_windows, split_windows
from bearray.data.titles import clean_title
from bearray.data.windows import Int64, Windows
from bearray.data.write import items_table
from bearray.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Source:
    """M interactions of users with items; 4 + 4 + 8 bytes each, so that dumps of many gigabytes fit."""

    name: str
    """The interactions' file, for messages."""
    user_code: NDArray[np.int32]
    """[M] into `user_ids`."""
    item_code: NDArray[np.int32]
    """[M] into `item_ids`."""
    timestamp: Int64
    """[M]"""
    user_ids: pa.Array
    """Distinct, int64 or string, ascending."""
    item_ids: pa.Array
    """Distinct, int64 or string, ascending; may hold items that no interaction has."""
    titles: pa.Array
    """Title of each of `item_ids`; null where there is none."""
    notes: Mapping[str, int] = field(default_factory=dict)
    """Counts worth reporting."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What goes to disk, and the counts on the way."""

    items: pa.Table
    splits: Mapping[Split, Windows]
    users: pa.Table | None
    notes: Mapping[str, int]


def window_source(source: Source, *, k: int | None, ratio: Ratio = RATIO) -> Prepared:
    """Untitled items out, the k-core, the windows, the cut; ids become int32.

    Integer ids that fit int32 stay as they are. Other ids (strings, large numbers) become 1, 2, ... in the
    order of the ids that survive, which the tables record as `source_id`. With a k-core the catalogue is what
    survives it; without one it is every item with a title, seen or not.

    Args:
        source: the interactions.
        k: of the k-core; None leaves the interactions as they are.
        ratio: shares of train, valid, test.

    Raises:
        DataError: no item with a title, nothing left, an empty split.
        ConfigError: k below 1.
    """
    notes = Counter(dict(source.notes))
    titled = np.array([bool(clean_title(title)) for title in source.titles.to_pylist()], dtype=bool)
    if not titled.any():
        raise DataError(
            f"{source.name}: none of its {len(titled)} items has a title; bearray recommends by title"
        )
    notes["interactions_read"] = len(source.user_code)
    notes["items_without_title"] = int((~titled).sum())
    keep = titled[source.item_code]
    notes["interactions_dropped_untitled"] = int((~keep).sum())
    users, items, times = source.user_code[keep], source.item_code[keep], source.timestamp[keep]
    if k is not None:
        core = k_core(users, items, k)
        notes["interactions_dropped_k_core"] = int((~core).sum())
        users, items, times = users[core], items[core], times[core]
        titled = titled & np.isin(np.arange(len(titled)), items)
    if not len(users):
        raise DataError(
            f"{source.name}: no interaction is left after dropping untitled items and the {k}-core"
        )

    seen, counts = np.unique(users, return_counts=True)
    notes["users_with_one_interaction"] = int((counts < 2).sum())
    if counts.max() < 2:
        raise DataError(f"{source.name}: no user has two interactions; a window is a history and a target")
    new_user, user_source = _final_ids(source.user_ids, seen)
    kept_items = np.flatnonzero(titled)
    new_item, item_source = _final_ids(source.item_ids, kept_items)
    windows = make_windows(new_user[users], new_item[items], times)
    titles = source.titles.take(pa.array(kept_items))
    return Prepared(
        items=items_table(new_item[kept_items], titles, item_source),
        splits=split_windows(windows, ratio),
        users=None
        if user_source is None
        else pa.table({"user_id": pa.array(new_user[seen], pa.int32()), "source_id": user_source}),
        notes=dict(notes),
    )


def _final_ids(ids: pa.Array, kept: NDArray[np.integer]) -> tuple[Int64, pa.Array | None]:
    """(id on disk of each code, source ids of the kept codes or None where they stay as they are)."""
    if pa.types.is_integer(ids.type):
        values = ids.to_numpy()
        if not len(values) or (values.min() >= 0 and values.max() <= INT32_MAX):
            return values.astype(np.int64), None
    new = np.zeros(len(ids), dtype=np.int64)
    new[kept] = np.arange(1, len(kept) + 1)
    return new, ids.take(pa.array(kept)).cast(pa.string())
