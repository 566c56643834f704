"""The windows of a split as flat arrays, the form in which they are built, checked and written."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """The windows of one split as flat arrays: W windows, M item ids in all."""

    user_id: Int64
    """[W]"""
    offsets: Int64
    """[W + 1]; window w is items[offsets[w]:offsets[w + 1]], its last item the target."""
    items: Int64
    """[M]"""
    timestamp: Int64
    """[W] time of the target."""
    flags: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Published sample marks, by column name; [W] each."""
    file: str = ""
    """Where they were read, for messages."""

    def __len__(self) -> int:
        return len(self.user_id)

    @property
    def targets(self) -> Int64:
        """[W] the last item of each window."""
        return self.items[self.offsets[1:] - 1]

    def row_of(self, position: int) -> int:
        """The window that holds the flat position."""
        return int(np.searchsorted(self.offsets, position, side="right")) - 1

    def where(self, keep_item: NDArray[np.bool_], keep_window: NDArray[np.bool_]) -> Windows:
        """These windows without some items ([M] mask) and without some windows ([W] mask)."""
        lengths = np.diff(self.offsets)
        keep_item = keep_item & np.repeat(keep_window, lengths)
        kept = np.concatenate(([0], np.cumsum(keep_item)))
        counts = (kept[self.offsets[1:]] - kept[self.offsets[:-1]])[keep_window]
        return Windows(
            user_id=self.user_id[keep_window],
            offsets=np.concatenate(([0], np.cumsum(counts))),
            items=self.items[keep_item],
            timestamp=self.timestamp[keep_window],
            flags={name: flag[keep_window] for name, flag in self.flags.items()},
            file=self.file,
        )

    def take(self, rows: NDArray[np.integer]) -> Windows:
        """The windows at `rows`, in that order."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        starts = np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return Windows(
            user_id=self.user_id[rows],
            offsets=offsets,
            items=self.items[starts + np.arange(offsets[-1])],
            timestamp=self.timestamp[rows],
            flags={name: flag[rows] for name, flag in self.flags.items()},
            file=self.file,
        )

    def to_table(self) -> pa.Table:
        """The on-disk columns: user_id int32, item_ids list<int32>, timestamp int64, then the flags."""
        lists = pa.ListArray.from_arrays(
            pa.array(self.offsets.astype(np.int32)), pa.array(self.items.astype(np.int32))
        )
        columns: dict[str, pa.Array] = {
            "user_id": pa.array(self.user_id.astype(np.int32)),
            "item_ids": lists,
            "timestamp": pa.array(self.timestamp.astype(np.int64)),
        }
        return pa.table(columns | {name: pa.array(flag) for name, flag in self.flags.items()})
