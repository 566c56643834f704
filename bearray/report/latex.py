"""A table as LaTeX, in the booktabs style, every name escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from bearray.plain import printable
from bearray.report.cells import METRICS, NORMALIZER_WORDS, POPULATION_WORDS, Cell, Table, metric_words
from bearray.report.formats import legend, mark, spread

_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",
    "]": "{]}",
    "†": r"$^\dagger$",
    "–": "--",
    "−": "$-$",
    "…": r"\ldots{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "\ufffd": "?",
}


def tex(text: str) -> str:
    """Text in which nothing is a LaTeX command; line breaks become spaces."""
    return "".join(_TEX.get(char, char) for char in printable(str(text)))


def text_table(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    columns: Literal["l", "r"],
    spans: Sequence[tuple[str, int]] = (),
) -> list[str]:
    """The lines of a table environment whose caption and cells are all text, escaped here.

    Args:
        columns: alignment of all columns but the first, which is on the left.
        spans: names above the header, each over a number of columns.
    """
    above = [rf"\multicolumn{{{width}}}{{c}}{{{tex(name)}}}" for name, width in spans]
    return [
        r"\begin{table}[t]",
        r"\centering\scriptsize",
        rf"\caption{{{tex(caption)}}}",
        rf"\begin{{tabular}}{{l{columns * (len(header) - 1)}}}",
        r"\toprule",
        *([" & ".join(above) + r" \\"] if above else []),
        " & ".join(map(tex, header)) + r" \\",
        r"\midrule",
        *(" & ".join(map(tex, row)) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def text_tables(
    subject: str, parts: Iterable[tuple[str, tuple[Sequence[str], Iterable[Sequence[str]]]]]
) -> str:
    """A file of table environments about one subject, each from (caption, (header, rows)), all of it text."""
    lines = [r"% needs \usepackage{booktabs}"]
    for caption, (header, rows) in parts:
        lines += text_table(f"{subject}. {caption}", header, rows, columns="r")
    return "\n".join(lines) + "\n"


def latex(table: Table) -> str:
    """A table environment in the booktabs style: the parts of `table` one below the other."""
    columns = len(METRICS) + 2 + table.seeded
    subject = f"{tex(table.dataset)}, {tex(table.base_model)}, {tex(NORMALIZER_WORDS[table.normalize])}"
    signs = tex(legend(table)).replace("* better", "$^*$ better")
    seeds = ["seeds"] if table.seeded else []
    head = ["Method", *(tex(metric_words(m)) for m in METRICS), "$n$", "users", *seeds]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}[t]",
        r"\centering\small",
        rf"\caption{{{subject}. {signs}}}",
        rf"\begin{{tabular}}{{l{'r' * columns}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
    ]
    for part in table.parts:
        lines += [
            r"\midrule",
            rf"\multicolumn{{{columns + 1}}}{{l}}{{\emph{{{tex(POPULATION_WORDS[part.population])}}}}} \\",
        ]
        for row in part.rows:
            cells = [_tex_cell(row.cells[m]) for m in METRICS]
            counts = [row.n, row.users, *([row.seeds] if table.seeded else [])]
            lines.append(" & ".join([tex(row.label), *cells, *map(str, counts)]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _tex_cell(cell: Cell) -> str:
    mean = f"{cell.mean:.4f}"
    mean = {1: rf"\textbf{{{mean}}}", 2: rf"\underline{{{mean}}}"}.get(cell.place, mean)
    sign = {"*": "$^*$", "†": r"$^\dagger$", "": ""}[mark(cell)]
    return rf"{mean}{sign} {{\scriptsize [{cell.low:.4f}, {cell.high:.4f}]{tex(spread(cell))}}}"
