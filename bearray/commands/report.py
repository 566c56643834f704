"""`bearray report STORAGE`."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional


def report(storage: Positional[str], *, out: Path | None = None) -> None:
    """Write the report of a sweep: one HTML file, Markdown, CSV, LaTeX and figures.

    Args:
        storage: The sweep's storage folder or URI; run folders are found anywhere under it.
        out: Where the report goes; STORAGE/report when not given.
    """
    from bearray.report.anywhere import report_on

    print(report_on(storage, out))
