"""Beyond accuracy in words: the same cells for HTML, Markdown and LaTeX; and as CSV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple
from typing import Any

from bearray.report.beyond import LIST_MEASURES, SPREAD_MEASURES, TARGETS, BeyondRow, BeyondTable, K, Measure
from bearray.report.cells import NORMALIZER_WORDS
from bearray.report.formats import to_csv
from bearray.report.headline import signed
from bearray.report.latex import text_tables
from bearray.report.markdown import md, table_lines

Cells = tuple[list[str], list[list[str]]]
"""Column names and rows; the first column of a row is its name."""

EXPLANATION = (
    f"What the first {K} titles of the lists are like, whether they are right or not. No number here "
    "is good or bad in itself; a method that gains accuracy by showing everybody the same few popular "
    "titles is seen here. Popularity is how many windows of the whole training split have the title "
    "as their target. Head: the fewest most popular titles that have 20 % of these targets; tail: the "
    "least popular ones with at most 20 %, and all that never were a target; middle: the rest. "
    "Formulas and sources: bearray/beyond_accuracy.py."
)
LIST_CAPTION = (
    "Means over lists, with 95% intervals over users. Popularity: training targets of a recommended "
    "title (average recommendation popularity, ARP). Lift: how much more popular the lists are than "
    "the users' own histories; +100% is twice as popular. Long tail: share of a list that is not of "
    "the head (APLT). Novelty: bits of surprise of a recommended title, more for a rarer one. "
    "Diversity: distance between two titles of a list by their words; 0, the same words, 1, none in "
    f"common. \u201c{TARGETS}\u201d: the same of the test cases' targets, as a yardstick."
)
SPREAD_CAPTION = (
    "Of all lists together. Titles: different ones that anybody is shown; coverage: their share of "
    "the catalogue. Entropy: bits; 2 to its power is how many titles shown equally often would be as "
    "varied. Gini: 0, every title of the catalogue is shown as often; 1, a single one is; by place: "
    "with the weights of DCG, so that first places count more. These have no interval, since fewer "
    "users reach fewer titles, whatever the method. Exposure of head, middle and tail: their share of "
    "all attention (by place) over their share of the training targets, with 95% intervals over "
    "users; 1 is as much as users chose them, 2 twice as much."
)
_NAMES = {
    "arp": "Popularity",
    "lift": "Lift",
    "long_tail": "Long tail",
    "novelty": "Novelty (bits)",
    "diversity": "Diversity",
    "titles": "Titles",
    "coverage": "Coverage",
    "entropy": "Entropy (bits)",
    "gini": "Gini",
    "gini_by_place": "Gini by place",
    "ratio_head": "Exposure of head",
    "ratio_mid": "of middle",
    "ratio_tail": "of tail",
}


def cell(name: str, measure: Measure | None) -> str:
    """A measure for readers: 12.3 [11.9, 12.7], or a dash."""
    if measure is None:
        return "–"
    text = _number(name, measure.value)
    if measure.low is None or measure.high is None:
        return text
    return f"{text} [{_number(name, measure.low)}, {_number(name, measure.high)}]"


def _number(name: str, value: float) -> str:
    if name == "lift":
        return signed(value, ".0%")
    if name in ("long_tail", "coverage"):
        return f"{value:.1%}"
    if name == "titles":
        return f"{value:,.10g}"
    digits = {"arp": 1, "novelty": 2, "entropy": 2, "ratio_head": 2, "ratio_mid": 2, "ratio_tail": 2}
    return f"{value:,.{digits.get(name, 3)}f}"


def parts(table: BeyondTable) -> list[tuple[str, Cells]]:
    """(caption, cells) of what could be computed: means over lists, then what all lists together reach."""
    found = []
    for caption, names in ((LIST_CAPTION, LIST_MEASURES), (SPREAD_CAPTION, SPREAD_MEASURES)):
        there = [n for n in names if any(n in row.values for row in table.rows)]
        rows = [row for row in table.rows if any(n in row.values for n in there)]
        if there:
            found.append((caption, _cells(rows, there)))
    return found


def _cells(rows: Sequence[BeyondRow], names: Sequence[str]) -> Cells:
    lines = [[row.label, *(cell(n, row.values.get(n)) for n in names)] for row in rows]
    return ["Method", *(_NAMES[n] for n in names)], lines


def subject(table: BeyondTable) -> str:
    titles = "" if table.titles is None else f", {table.titles:,} titles"
    how = NORMALIZER_WORDS[table.normalize]
    return f"{table.dataset}{titles}, {table.base_model}, {how}"


def markdown(tables: Iterable[BeyondTable]) -> list[str]:
    """The section as lines of Markdown."""
    lines: list[str] = []
    for table in tables:
        if not lines:
            lines += ["## Beyond accuracy", "", md(EXPLANATION), ""]
        lines += [f"**{md(subject(table))}**", ""]
        for caption, (header, rows) in parts(table):
            cells = [[*map(md, row)] for row in rows]  # names come from files that others wrote
            lines += [*table_lines(header, cells), "", md(caption), ""]
        lines += [*(f"- {md(note)}" for note in table.notes), *([""] if table.notes else [])]
    return lines


def latex(table: BeyondTable) -> str:
    """A table environment in the booktabs style for each part."""
    return text_tables(subject(table), parts(table))


def csv(tables: Iterable[BeyondTable]) -> str:
    """One row a method and measure, in plain numbers."""
    rows: list[tuple[Any, ...]] = []
    for t in tables:
        for row in t.rows:
            where = (t.dataset, t.base_model, t.normalize, row.label, row.seeds)
            rows += [(*where, name, *astuple(row.values[name])) for name in row.values]
    header = "dataset base_model normalizer method seeds measure value low high"
    return to_csv(header.split(), rows)
