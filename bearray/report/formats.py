"""The tables as CSV, Markdown and LaTeX, from the same numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from itertools import product
from typing import Any

from bearray.plain import printable
from bearray.report.cells import METRICS, Cell, Table, metric_words
from bearray.report.headline import p_words, signed
from bearray.report.published import Published
from bearray.report.records import Collection
from bearray.report.search import Search

TIDY_COLUMNS = (
    "dataset",
    "base_model",
    "normalizer",
    "population",
    "method",
    "run",
    "metric",
    "mean",
    "low",
    "high",
    "n",
    "users",
    "versus",
    "difference",
    "difference_low",
    "difference_high",
    "p",
    "p_holm",
    "verdict",
    "seeds",
    "seed_sd",
)
FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a formula begins with; the last four are their full-width forms, which Excel takes for the same."""
MARKS = {"better": "*", "worse": "†", "undecided": ""}
LEGEND = (
    "Mean over test cases with the 95% interval over users. Best in bold, second underlined. * better "
    "and † worse than the best other method, paired test over users, p < 0.05 after Holm's correction "
    "within a part of the table."
)


SEED_LEGEND = (
    " A row with several seeds is their mean, test case by test case, which interval and tests are about; "
    "± is the standard deviation of the seeds' own means."
)


def legend(table: Table) -> str:
    """What the signs of a table mean."""
    return LEGEND + (SEED_LEGEND if table.seeded else "")


def spread(cell: Cell) -> str:
    """±0.0012 for a cell that is a mean over seeds, else nothing."""
    return "" if cell.seed_sd is None else f" ±{cell.seed_sd:.4f}"


def mark(cell: Cell) -> str:
    """* or † where the paired test is decided, else nothing."""
    return MARKS[cell.test.verdict] if cell.test else ""


def to_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV text; numbers with 10 significant digits, None as an empty field.

    Text that a spreadsheet would run as a formula gets a leading apostrophe, in the header, too.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_field(name) for name in header])
    for row in rows:
        writer.writerow([_field(v) for v in row])
    return out.getvalue()


def _field(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, str):
        text = printable(value)  # no tab or line break is left, which some spreadsheets skip before a formula
        return f"'{text}" if text.startswith(FORMULA) else text
    return "" if value is None else value


def tidy_csv(tables: Iterable[Table]) -> str:
    """One row a table part, method and metric."""
    rows: list[tuple[Any, ...]] = []
    for t in tables:
        for part in t.parts:
            for row, metric in product(part.rows, METRICS):
                where = (t.dataset, t.base_model, t.normalize, part.population, row.label, row.run.id, metric)
                cell, test = row.cells[metric], row.cells[metric].test
                tested = (*astuple(test), test.verdict) if test else (None,) * 7
                measured = (cell.mean, cell.low, cell.high, row.n, row.users)
                rows.append((*where, *measured, *tested, row.seeds, cell.seed_sd))
    return to_csv(TIDY_COLUMNS, rows)


def table2_csv(tables: Sequence[Table]) -> str:
    """The shape of the paper's Table 2: a row a method, the data sets side by side, means only."""
    columns = list(product(sorted({t.dataset for t in tables}), METRICS))
    cells: dict[tuple[str, ...], dict[tuple[str, str], float]] = {}
    for t in tables:
        for part in t.parts:
            for row in part.rows:
                line = cells.setdefault((t.base_model, t.normalize, part.population, row.label), {})
                line |= {(t.dataset, m): row.cells[m].mean for m in METRICS}
    header = ["base_model", "normalizer", "population", "method", *(f"{d} {m}" for d, m in columns)]
    return to_csv(header, [(*key, *(line.get(c) for c in columns)) for key, line in cells.items()])


def published_csv(pairs: Iterable[tuple[Table, Published]]) -> str:
    """Published numbers with ours beside them, where they are comparable."""
    rows: list[tuple[Any, ...]] = []
    for table, published in pairs:
        backbone = next((r.method for r in published.rows if r.sft), "")
        where = (table.dataset, table.base_model, table.normalize, published.table)
        for row in published.rows:
            name = f"{backbone} {row.method}" if row.method.startswith("+") else row.method
            for metric, value in row.values.items():
                cell = row.ours.cells[metric] if row.ours else None
                ours = (cell.mean, cell.low, cell.high) if cell else (None,) * 3
                rows.append((*where, name, metric, value, row.ours.label if row.ours else None, *ours))
    header = (
        "dataset base_model normalizer paper_table published_method metric published method mean low high"
    )
    return to_csv(header.split(), rows)


def trials_csv(searches: Iterable[Search]) -> str:
    """One row a trial and searched setting."""
    rows: list[tuple[Any, ...]] = []
    for s in searches:
        for t in s.trials:
            about = (s.dataset, s.base_model, s.method, t.run.id, t.run.status, t.chosen)
            for axis in s.axes or ("",):
                rows.append((*about, axis, t.settings.get(axis), t.ndcg, t.run.valid("hr@10")))
    header = "dataset base_model method run status chosen setting value valid_ndcg@10 valid_hr@10"
    return to_csv(header.split(), rows)


def runs_csv(collection: Collection) -> str:
    """One row a run folder."""
    plain = ["id", "role", "method", "dataset", "base_model", "base_model_kind", "status", "reason", "chosen"]
    after = ["config_hash", "data_hash", "git", "created"]
    seconds = ("train", "valid", "test")
    header = ["run", *plain[1:], "valid_ndcg@10", *(f"{p}_seconds" for p in seconds), *after]
    rows = [
        (
            *(getattr(r, name) for name in plain),
            r.valid("ndcg@10"),
            *(r.seconds(p) for p in seconds),
            *(getattr(r, name) for name in after),
        )
        for r in collection.runs
    ]
    return to_csv(header, rows)


def setting(value: Any) -> str:
    """A setting's value for readers: numbers with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def paired_rows(table: Table) -> list[dict[str, str]]:
    """The paired tests over all test cases, for a table of their own."""
    part = table.part("all")
    rows = []
    for metric, row in product(METRICS, part.rows if part else ()):
        test = row.cells[metric].test
        if test is not None:
            rows.append(
                {
                    "metric": metric_words(metric),
                    "method": row.label,
                    "versus": test.versus,
                    "difference": signed(test.difference, ".4f"),
                    "interval": f"{signed(test.low, '.4f')} to {signed(test.high, '.4f')}",
                    "p": p_words(test.p).removeprefix("p ").removeprefix("= "),
                    "p_holm": p_words(test.p_holm).removeprefix("p ").removeprefix("= "),
                    "verdict": test.verdict,
                }
            )
    return rows
