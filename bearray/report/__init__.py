"""Reports: run folders in; one HTML file, Markdown, CSV, LaTeX and figures out."""

from bearray.report.collect import Collection, Run, collect
from bearray.report.tables import Table, build_tables
from bearray.report.write import write_report

__all__ = ["Collection", "Run", "Table", "build_tables", "collect", "write_report"]
