"""Writes the tables and figures of a benchmark beside its efficiency.json."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bearray.efficiency.results import FILE, FOLDER
from bearray.errors import MissingFileError
from bearray.report import efficiency_text
from bearray.report.anywhere import NOT_READ
from bearray.report.cells import Table
from bearray.report.collect import collect
from bearray.report.efficiency import Efficiency, read_efficiency
from bearray.report.efficiency_figures import efficiency_figures
from bearray.report.figures import save
from bearray.report.tables import build_tables
from bearray.runs import Storage, fetch_folder


def write_efficiency(storage: str) -> tuple[Efficiency, str]:
    """Write STORAGE/efficiency/table.{md,csv,tex}, ratios.csv and figures/*.{png,svg}.

    Args:
        storage: a folder, or a URI such as s3://bucket/sweep; with the runs of a sweep in it, a figure sets
            them against what their objectives cost.

    Returns:
        What was written, and the folder where.

    Raises:
        MissingFileError: nothing was measured in this storage.
        DataError: efficiency.json or a run is damaged.
        StorageError: the files cannot be written.
    """
    target = Storage(storage).child(FOLDER)
    with fetch_folder(storage, without=NOT_READ) as local:
        found = read_efficiency(local, _tables(local))
    if found is None:
        raise MissingFileError(f"{storage} has no {FOLDER}/{FILE}; bearray bench objectives makes one")
    texts = {
        "table.md": "\n".join(efficiency_text.markdown(found, "# What it costs")).rstrip() + "\n",
        "table.csv": efficiency_text.csv(found),
        "table.tex": efficiency_text.latex(found),
        "ratios.csv": efficiency_text.ratios_csv(found),
    }
    for name, text in texts.items():
        target.write_bytes(name, text.encode())
    with tempfile.TemporaryDirectory() as folder:
        for figure in efficiency_figures(found):
            save(figure, Path(folder))
        for file in sorted(Path(folder).iterdir()):
            target.write_bytes(f"figures/{file.name}", file.read_bytes())
    return found, target.root


def _tables(storage: Path) -> list[Table]:
    try:
        return build_tables(collect(storage).runs)
    except MissingFileError:  # a storage of its own, without runs
        return []
