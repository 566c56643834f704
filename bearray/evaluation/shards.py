"""A table of test cases on disk: one Parquet file a shard, a manifest that says what the table is of.

A shard is the unit of resumption: a file that is there, complete, and of the manifest's settings is not
made again. Counts are checked when the table is read, so a lost shard is an error and never a smaller mean.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bearray.config import differences
from bearray.errors import DataError, ResumeError
from bearray.runs import Storage

MANIFEST = "manifest.json"


def shard_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


SECONDS = "bearray.seconds"
"""Where a shard's file says how long it took to make; `ShardedTable.read` adds them up."""


def write_shard(folder: Storage, number: int, table: pa.Table, *, seconds: float | None = None) -> None:
    """Write a whole shard at once; a reader sees all of it or none. `seconds`: what it took to make."""
    if seconds is not None:
        table = table.replace_schema_metadata({SECONDS: repr(seconds)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    folder.write_bytes(shard_name(number), buffer.getvalue())


@dataclass(frozen=True)
class ShardedTable:
    """A table with one row for each of the given test cases, in shards of `size` rows."""

    folder: Storage
    schema: pa.Schema
    """Its columns; column `row` is the number of the test case in the sampled split."""
    rows: Sequence[int]
    """The test cases in the table's order."""
    size: int
    """Rows in a shard; the last one may have fewer."""
    what: str
    """What a row says, for messages: predictions, measurements."""

    @property
    def shards(self) -> int:
        return -(-len(self.rows) // self.size)

    def rows_of(self, number: int) -> Sequence[int]:
        """The test cases of one shard."""
        return self.rows[number * self.size : (number + 1) * self.size]

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Start the folder, or continue one that was made with the same settings.

        Raises:
            ResumeError: it was made with other settings; the message names them.
        """
        new = dict(manifest)
        if not self.folder.exists(MANIFEST):
            self.folder.write_json(MANIFEST, new)
            return
        changed = differences(self.folder.read_json(MANIFEST), new)
        if changed:
            raise ResumeError(
                f"{self.folder.root} holds {self.what} made with other settings ({'; '.join(changed)}); "
                "repeat those settings to continue them, or delete the folder"
            )

    def missing(self) -> list[int]:
        """Numbers of the shards that still have to be made."""
        return [number for number in range(self.shards) if self._read(number) is None]

    def read(self) -> pd.DataFrame:
        """The finished table; `attrs["seconds"]` is what its shards took to make, together, where all say it.

        Raises:
            DataError: a shard is missing or damaged; the message names it.
        """
        shards = []
        for number in range(self.shards):
            shard = self._read(number)
            if shard is None:
                raise DataError(
                    f"{self.folder.root}/{shard_name(number)} is missing or damaged; run the same again to "
                    f"make the missing {self.what}"
                )
            shards.append(shard)
        frame = pd.concat(shards, ignore_index=True)
        times = [shard.attrs["seconds"] for shard in shards]
        frame.attrs = {} if None in times else {"seconds": sum(times)}
        return frame

    def _read(self, number: int) -> pd.DataFrame | None:
        """The shard, or None where it is missing, damaged or of other test cases."""
        name = shard_name(number)
        if not self.folder.exists(name):
            return None
        try:
            table = pq.read_table(io.BytesIO(self.folder.read_bytes(name)))
            told = (table.schema.metadata or {}).get(SECONDS.encode())
            seconds = None if told is None else float(told)
        except (pa.ArrowException, OSError, ValueError, MemoryError):
            return None  # cut off by a full disk or a crash of the storage: make it again
        if table.schema.names != self.schema.names or table.schema.types != self.schema.types:
            return None
        rows = self.rows_of(number)
        if table.num_rows != len(rows) or table.column("row").to_pylist() != list(rows):
            return None
        frame = table.to_pandas()
        frame.attrs = {"seconds": seconds}
        return frame
