"""The pruning analysis in words: the same cells for the terminal, HTML, Markdown and LaTeX; and as CSV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple
from typing import Any

from bearray.report.cells import NORMALIZER_WORDS, metric_words
from bearray.report.formats import to_csv
from bearray.report.latex import text_tables
from bearray.report.markdown import md, table_lines
from bearray.report.pruning import EXPLANATION, Estimate, PruningRow, PruningTable, Share

Cells = tuple[list[str], list[list[str]]]
"""Column names and rows; the first column of a row is its name."""

RATE_CAPTION = (
    "Pruning rates with 95% intervals over users, and pruned of deserving targets. The last columns are of "
    "the exact prunings at K = beam width: the share that violates condition (3.2) at any step, and at the "
    "step of the cut; the median distance of the dropped prefix to the last one kept."
)
SEARCH_CAPTION = (
    "The same cases by beams of other widths and by exact search, with 95% intervals over users. Proven: "
    "share of lists that are proven to be the true best ones. Nodes: prefixes whose continuations were "
    "scored. Times are of these runs' own actors."
)


def percent(share: Share) -> str:
    """12.3% [10.0%, 14.6%], or a dash for a share of nothing."""
    s = share.share
    return "–" if s is None else f"{s.value:.1%} [{s.low:.1%}, {s.high:.1%}]"


def rate(share: Share) -> str:
    """12.3% [10.0%, 14.6%], 37/300."""
    return f"{percent(share)}, {share.count}/{share.of}"


def estimate(value: Estimate) -> str:
    """0.1234 [0.1000, 0.1500]."""
    return f"{value.value:.4f} [{value.low:.4f}, {value.high:.4f}]"


def subject(table: PruningTable) -> str:
    where = f"{table.dataset}, {table.base_model}, {NORMALIZER_WORDS.get(table.normalize, table.normalize)}"
    return where if table.split == "test" else f"{where}, {table.split} split"


def rate_cells(rows: Sequence[PruningRow]) -> Cells:
    """A row a method: PR@K by both countings, and the causes."""
    ks = list(dict.fromkeys(r.k for row in rows for r in row.rates))
    header = ["Method", "cases", *(f"PR@{k} {how}" for k in ks for how in ("exact", "pool"))]
    header += ["violates (3.2)", "at the cut", "gap (nats)"]
    lines = []
    for row in rows:
        by_k = {r.k: r for r in row.rates}
        rates = [by_k.get(k) for k in ks]
        cells = [text for r in rates for text in ((rate(r.exact), rate(r.pool)) if r else ("–", "–"))]
        gap = f"{row.cut_gap['median']:.2f}" if row.cut_gap else "–"
        lines.append([row.label, f"{row.n:,}", *cells, percent(row.any_violation), percent(row.at_cut), gap])
    return header, lines


def search_cells(rows: Sequence[PruningRow]) -> Cells:
    """A row a method and search: HR and NDCG at the largest K, share proven, nodes and milliseconds."""
    metrics = search_metrics(rows)
    header = ["Method", "search", *map(metric_words, metrics), "proven", "nodes/user", "ms/user"]
    lines = []
    for row in rows:
        for s in row.searches:
            cells = [estimate(s.metrics[m]) if m in s.metrics else "–" for m in metrics]
            proven = "–" if s.proven is None else f"{s.proven:.1%}"
            cost = [f"{s.nodes:,.0f}", f"{s.milliseconds:,.1f}"]
            lines.append([row.label, s.method, *cells, proven, *cost])
    return header, lines


def search_metrics(rows: Sequence[PruningRow]) -> list[str]:
    """ndcg@K and hr@K for the largest K that was measured."""
    names = {m for row in rows for s in row.searches for m in s.metrics}
    largest = max((int(m.split("@")[1]) for m in names), default=0)
    return [m for m in (f"hr@{largest}", f"ndcg@{largest}") if m in names]


def causes(row: PruningRow) -> str:
    """Why targets were cut, in one sentence."""
    if not row.pruned:
        return f"No target of the true top {row.beam_width} was pruned."
    gap = f"; median gap {row.cut_gap['median']:.2f} nats" if row.cut_gap else ""
    return (
        f"Of {row.pruned} target{'s' * (row.pruned != 1)} pruned from the true top {row.beam_width}: "
        f"{percent(row.any_violation)} violate (3.2) somewhere, {percent(row.at_cut)} at the cut{gap}."
    )


def markdown(tables: Iterable[PruningTable]) -> list[str]:
    """The section as lines of Markdown."""
    lines: list[str] = []
    for table in tables:
        if not lines:
            lines += ["## What beam search loses", "", md(EXPLANATION), ""]
        lines += [f"**{md(subject(table))}**", ""]
        for caption, (header, rows) in _both(table):
            # names come from files that others wrote, numbers from here
            cells = [[*map(md, row[:2]), *row[2:]] for row in rows]
            lines += [*table_lines(header, cells), ""]
            lines += [md(caption), ""]
        lines += [*(f"- {md(note)}" for note in table.notes), *([""] if table.notes else [])]
    return lines


def latex(table: PruningTable) -> str:
    """Two table environments in the booktabs style."""
    return text_tables(subject(table), _both(table))


def _both(table: PruningTable) -> list[tuple[str, Cells]]:
    return [(RATE_CAPTION, rate_cells(table.rows)), (SEARCH_CAPTION, search_cells(table.rows))]


def rates_csv(tables: Iterable[PruningTable]) -> str:
    """One row a method and share: PR@K exact and pool, violations."""
    rows: list[tuple[Any, ...]] = []
    for t in tables:
        for row in t.rows:
            shares = [
                (f"pr@{r.k} {n}", s) for r in row.rates for n, s in (("exact", r.exact), ("pool", r.pool))
            ]
            shares += [("violates (3.2)", row.any_violation), ("violates (3.2) at the cut", row.at_cut)]
            where = (t.dataset, t.base_model, t.normalize, t.split, row.label, row.n, row.users)
            for name, s in shares:
                values = astuple(s.share) if s.share else (None,) * 3
                rows.append((*where, name, *values, s.count, s.of))
    header = "dataset base_model normalizer split method n users share value low high count of"
    return to_csv(header.split(), rows)


def search_csv(tables: Iterable[PruningTable]) -> str:
    """One row a method, search and metric, with its cost."""
    rows: list[tuple[Any, ...]] = []
    for t in tables:
        for row in t.rows:
            where = (t.dataset, t.base_model, t.normalize, t.split, row.label, row.n, row.users)
            for s in row.searches:
                for metric, v in s.metrics.items():
                    values = (metric, v.value, v.low, v.high, s.proven, s.nodes, s.milliseconds)
                    rows.append((*where, s.method, s.width, *values))
    header = "dataset base_model normalizer split method n users search width metric mean low high proven"
    return to_csv([*header.split(), "nodes", "milliseconds"], rows)


def steps_csv(tables: Iterable[PruningTable]) -> str:
    """One row a method and step at which targets were cut."""
    rows = [
        (t.dataset, t.base_model, t.normalize, t.split, row.label, step, count, row.pruned)
        for t in tables
        for row in t.rows
        for step, count in sorted(row.cut_steps.items())
    ]
    return to_csv(["dataset", "base_model", "normalizer", "split", "method", "step", "count", "of"], rows)
