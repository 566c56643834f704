"""`bearray data prepare`: a user's files in, a data set on disk out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bearray.data.protocol import parse_ratio
from bearray.data.source import window_source
from bearray.data.storage import check_output
from bearray.data.write import write_dataset
from bearray.errors import ConfigError

DUMP_K_CORE = 5
DEFAULT_RATIO = "8:1:1"


@dataclass(frozen=True, kw_only=True)
class PrepareResult:
    """Where the data set is, and what happened on the way there."""

    path: Path
    notes: Mapping[str, int]
    """Counts: interactions read and dropped, items without a title, ..."""


def prepare(
    out: str | Path,
    *,
    reviews: str | Path | None = None,
    metadata: str | Path | None = None,
    csv_folder: str | Path | None = None,
    interactions: str | Path | None = None,
    items: str | Path | None = None,
    k_core: int | None = None,
    ratio: str = DEFAULT_RATIO,
    force: bool = False,
) -> PrepareResult:
    """Turn raw dumps (reviews + metadata), a published CSV folder, or tables (interactions + items) into a
    data set.

    Args:
        out: the folder to create; it appears complete or not at all.
        reviews, metadata: raw Amazon dumps, see `bearray.data.dumps`.
        csv_folder: see `bearray.data.folders`; its windows are taken as they are.
        interactions, items: tables, see `bearray.data.tables`.
        k_core: users and items with fewer interactions leave, again and again. None: 5 for dumps, none for
        tables.
        ratio: train : valid : test.
        force: replace `out` if it is not empty.

    Raises:
        ConfigError: not exactly one kind of input, k_core below 1, a wrong ratio, either of them with a CSV
        folder.
        MissingFileError, DataError: what the readers and checks find.
        StorageError: `out` cannot be written.
    """
    given = {
        "--reviews and --metadata": (reviews, metadata),
        "--csv-folder": (csv_folder,),
        "--interactions and --items": (interactions, items),
    }
    chosen = [name for name, files in given.items() if any(file is not None for file in files)]
    if len(chosen) != 1 or any(file is None for file in given[chosen[0]]):
        raise ConfigError(f"give one of {', or '.join(given)}; got {' and '.join(chosen) or 'none of them'}")
    if csv_folder is not None and (k_core is not None or ratio != DEFAULT_RATIO):
        raise ConfigError(
            "--k-core and --ratio do not apply to --csv-folder: its windows are already made and split"
        )
    if k_core is not None and k_core < 1:
        raise ConfigError(f"k_core is {k_core}; it must be at least 1")
    shares = parse_ratio(ratio)
    out = check_output(Path(out), force=force)

    if csv_folder is not None:
        from bearray.data.folders import read_folder

        prepared = read_folder(csv_folder)
    elif reviews is not None and metadata is not None:
        from bearray.data.dumps import read_dump

        prepared = window_source(
            read_dump(reviews, metadata), k=DUMP_K_CORE if k_core is None else k_core, ratio=shares
        )
    else:
        from bearray.data.tables import read_tables

        assert interactions is not None and items is not None
        prepared = window_source(read_tables(interactions, items), k=k_core, ratio=shares)
    path = write_dataset(out, prepared.items, prepared.splits, users=prepared.users, force=force)
    return PrepareResult(path=path, notes=prepared.notes)
