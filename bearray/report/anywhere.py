"""Reports on storage that is no local folder: a copy of it is read, the pages are sent back."""

from __future__ import annotations

from pathlib import Path

from bearray.report.write import write_report
from bearray.runs import Storage, fetch_folder, join

NOT_READ = ("checkpoints", "tune", "report")
"""Folders of a storage that no report reads; the first two are most of its bytes."""


def report_on(storage: str, out: Path | None = None, *, data_dir: str | None = None) -> str:
    """Write the report of a storage folder or URI.

    Args:
        storage: a folder, or a URI such as s3://bucket/sweep.
        out: a local folder for the report; None: `report` in the storage itself.
        data_dir: the data set of all runs, where it was moved (default: where each config.json has it).

    Returns:
        Where index.html is.

    Raises:
        BearrayError: as `write_report`.
    """
    where = Storage(storage)
    if "://" not in where.root:
        return str(write_report(Path(where.root), out, data_dir=data_dir))
    with fetch_folder(where.root, without=NOT_READ) as local:
        index = write_report(local, out, data_dir=data_dir)
        if out is not None:
            return str(index)
        for file in sorted(index.parent.rglob("*")):
            if file.is_file():
                where.write_bytes(f"report/{file.relative_to(index.parent).as_posix()}", file.read_bytes())
    return join(where.root, "report", "index.html")
