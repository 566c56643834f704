"""Reports: run folders in; one HTML file, Markdown, CSV, LaTeX and figures out."""

from bearray.report.cells import Table
from bearray.report.collect import collect
from bearray.report.records import Collection, Run
from bearray.report.tables import build_tables
from bearray.report.write import write_report

__all__ = ["Collection", "Run", "Table", "build_tables", "collect", "write_report"]
