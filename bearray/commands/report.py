"""`bearray report STORAGE`."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional


def report(storage: Positional[str], *, out: Path | None = None, data_dir: str | None = None) -> None:
    """Write the report of a sweep: one HTML file, Markdown, CSV, LaTeX and figures.

    Args:
        storage: The sweep's storage folder or URI; run folders are found anywhere under it.
        out: Where the report goes; STORAGE/report when not given.
        data_dir: Folder of the runs' data set, if it was moved; what is beyond accuracy needs it.
    """
    from bearray.report.anywhere import report_on

    print(report_on(storage, out, data_dir=data_dir))
