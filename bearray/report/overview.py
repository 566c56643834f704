"""All methods at a glance: accuracy by each way of decoding, pruning, and cost, a row a method.

The same numbers stand with intervals and tests in the tables that follow it in a report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from bearray.report.cells import Cell, Row, Table, metric_words
from bearray.report.cost import Cost
from bearray.report.formats import mark, spread, to_csv
from bearray.report.latex import text_tables
from bearray.report.markdown import md, table_lines
from bearray.report.pruned import pruned_of
from bearray.report.pruning import PruningTable
from bearray.report.records import DECODINGS

METRICS = ("ndcg@10", "hr@10")
SHOWN = tuple(d for d in DECODINGS if not d.endswith("_lp1"))
"""Decodings with a column; those with length penalty 1 have their own tables."""
K = 10
CAPTION = (
    "Each method's runs that were chosen by validation, on all test cases. trie and full: beam search by "
    "the softmax over the valid next tokens and over the vocabulary; exact: the true most probable titles, "
    "by the run's own softmax. * better and † worse than the best other method in the same column, as in "
    "the tables below; ± is the standard deviation over seeds. PR@10: share of the targets among the ten "
    "most probable titles that beam search lost, by true rank, all seeds together: of all test cases where "
    "exact search proved every list, else of those that `bearray pruning` measured. Times are means over "
    "seeds: training of one run, and an actor's milliseconds for a test case, by decoding."
)

Cells = tuple[list[str], list[list[str]]]
"""Column names and rows; the first column of a row is its name."""


@dataclass(frozen=True, kw_only=True)
class Glance:
    """One method."""

    label: str
    seeds: int
    cells: Mapping[tuple[str, str], Cell]
    """By decoding and metric."""
    pruned: tuple[int, int] | None
    """Targets lost, of how many that deserved a place; None where it was not measured."""
    cost: Cost | None


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The methods of one data set and base model."""

    dataset: str
    base_model: str
    rows: tuple[Glance, ...]

    @property
    def decodings(self) -> list[str]:
        return [d for d in SHOWN if any((d, METRICS[0]) in row.cells for row in self.rows)]


def build_overview(
    tables: Sequence[Table], costs: Sequence[Cost], pruning: Iterable[PruningTable]
) -> Overview | None:
    """The overview of one data set and base model; None without a table.

    Args:
        tables: its tables, in any order. costs, pruning: its costs and pruning analyses.
    """
    parts = {t.normalize: part for t in tables if (part := t.part("all")) is not None}
    if not parts:
        return None
    lost = _lost(pruning)
    rows: dict[str, Row] = {}
    for decoding in SHOWN:
        for row in parts[decoding].rows if decoding in parts else ():
            rows.setdefault(row.label, row)
    by_run = {cost.run.id: cost for cost in costs}
    glances = []
    for label, row in rows.items():
        cells = {
            (decoding, metric): found.cells[metric]
            for decoding, part in parts.items()
            for found in part.rows
            if found.label == label
            for metric in METRICS
        }
        counts = [n for r in row.runs if (n := pruned_of(r, K) or lost.get((r.id, r.normalize)))]
        glances.append(
            Glance(
                label=label,
                seeds=row.seeds,
                cells=cells,
                pruned=(sum(n for n, _ in counts), sum(of for _, of in counts)) if counts else None,
                cost=by_run.get(row.run.id),
            )
        )
    return Overview(dataset=tables[0].dataset, base_model=tables[0].base_model, rows=tuple(glances))


def _lost(pruning: Iterable[PruningTable]) -> dict[tuple[str, str], tuple[int, int]]:
    """By run and normaliser: exact prunings at K, of how many."""
    return {
        (row.run, table.normalize): (rate.exact.count, rate.exact.of)
        for table in pruning
        if table.split == "test"
        for row in table.rows
        for rate in row.rates
        if rate.k == K
    }


def overview_cells(overview: Overview) -> Cells:
    """The overview for readers, as text."""
    columns = list(product(overview.decodings, METRICS))
    seeded = any(row.seeds > 1 for row in overview.rows)
    measured = any(row.pruned for row in overview.rows)
    timed = [d for d in overview.decodings if any(r.cost and d in r.cost.decoding for r in overview.rows)]
    header = ["Method", *(["seeds"] if seeded else [])]
    header += [f"{metric_words(m)} {d}" for d, m in columns]
    header += [f"PR@{K}"] if measured else []
    header += ["train (s)", *(f"ms {d}" for d in timed)]
    lines = []
    for row in overview.rows:
        line = [row.label, *([str(row.seeds)] if seeded else [])]
        line += [_measure(row.cells.get(column)) for column in columns]
        line += [_share(row.pruned)] if measured else []
        line += [_training(row.cost), *(_milliseconds(row.cost, d) for d in timed)]
        lines.append(line)
    return header, lines


def _measure(cell: Cell | None) -> str:
    return "–" if cell is None else f"{cell.mean:.4f}{mark(cell)}{spread(cell)}"


def _share(pruned: tuple[int, int] | None) -> str:
    if pruned is None or not pruned[1]:
        return "–"
    return f"{pruned[0] / pruned[1]:.1%}, {pruned[0]}/{pruned[1]}"


def _training(cost: Cost | None) -> str:
    seconds = cost.seconds["train"] if cost else None
    if cost is None or seconds is None:
        return "–"
    return f"{seconds:,.1f}" + (f" after {cost.started_from}" if cost.started_from else "")


def _milliseconds(cost: Cost | None, decoding: str) -> str:
    found = cost.decoding.get(decoding) if cost else None
    return "–" if found is None else f"{found:,.1f}"


def overview_markdown(overview: Overview) -> list[str]:
    """The overview as lines of Markdown."""
    header, rows = overview_cells(overview)
    cells = [[*map(md, row)] for row in rows]  # names come from files that others wrote
    title = f"## All methods: {md(overview.dataset)}, {md(overview.base_model)}"
    return [title, "", *table_lines(header, cells), "", md(CAPTION), ""]


def overview_latex(overview: Overview) -> str:
    """The overview as a table environment in the booktabs style."""
    return text_tables(f"{overview.dataset}, {overview.base_model}", [(CAPTION, overview_cells(overview))])


def overview_csv(overviews: Iterable[Overview]) -> str:
    """One row a method, in plain numbers."""
    columns = list(product(SHOWN, METRICS))
    header = ["dataset", "base_model", "method", "seeds"]
    header += [f"{d} {m}{what}" for d, m in columns for what in ("", " seed_sd")]
    header += ["pruned", "deserving", "started_from", "train_seconds", *(f"{d} ms" for d in SHOWN)]
    lines: list[list[object]] = []
    for overview in overviews:
        for row in overview.rows:
            line: list[object] = [overview.dataset, overview.base_model, row.label, row.seeds]
            for column in columns:
                cell = row.cells.get(column)
                line += [cell.mean, cell.seed_sd] if cell else [None, None]
            line += row.pruned or (None, None)
            line += [row.cost.started_from, row.cost.seconds["train"]] if row.cost else [None, None]
            line += [row.cost.decoding.get(d) if row.cost else None for d in SHOWN]
            lines.append(line)
    return to_csv(header, lines)
