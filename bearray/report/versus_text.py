"""Runs against one another in words: the same cells for the terminal, Markdown and HTML; and as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bearray.report.cells import METRICS, NORMALIZER_WORDS, Comparison, metric_words
from bearray.report.examples import Example, Shown
from bearray.report.files_out import replaced_together, write_texts
from bearray.report.formats import to_csv
from bearray.report.headline import p_words, signed
from bearray.report.html import environment_of
from bearray.report.markdown import md, table_lines
from bearray.report.records import ALL_TITLES
from bearray.report.versus import Versus

Cells = tuple[list[str], list[list[str]]]
"""Column names and rows; the first column of a row is its name."""

MEAN_CAPTION = (
    "Mean over test cases with the 95% interval over users. Here every test case counts once; in the "
    "differences below every user does, however many cases are theirs."
)
DIFFERENCE_CAPTION = (
    "Paired over users: mean of the users' mean differences, with the 95% interval over users; sign-flip "
    "permutation test over users; p corrected by Holm for the {count} comparisons of this table. Decided "
    "(better, worse) below 0.05. It is about these runs; another seed of a method is another run."
)
GROUP_CAPTION = (
    "{metric} by groups of test cases, of about equal size where a number parts them. Difference to "
    "{first} as above, with its interval and p, which is corrected for all {count} comparisons of this "
    "table. Groups are for finding out where to look: the same cases stand in several of them."
)
HISTORY = 5
"""Titles of a history that are shown at most, the last ones."""


def headline(versus: Versus) -> str:
    """What is compared, on what."""
    numbered = all(c.run.is_baseline for c in versus.contenders)
    how = f"{ALL_TITLES} scored" if numbered else NORMALIZER_WORDS[versus.decoding]
    return (
        f"{len(versus.contenders)} runs on {versus.n:,} test cases of {versus.users:,} users of "
        f"{versus.dataset}, {how}"
    )


def metrics_of(versus: Versus) -> list[str]:
    return list(dict.fromkeys([versus.metric, *METRICS]))


def mean_cells(versus: Versus) -> Cells:
    """A row a run."""
    metrics = metrics_of(versus)
    rows = []
    for c in versus.contenders:
        cells = [f"{mean:.4f} [{low:.4f}, {high:.4f}]" for mean, low, high in (c.means[m] for m in metrics)]
        rows.append([c.label, *cells, c.run.id, c.run.base_model])
    return ["Method", *map(metric_words, metrics), "run", "base model"], rows


def difference_cells(versus: Versus) -> Cells:
    """A row a metric and pair."""
    header = ["Metric", "Method", "Against", "Difference", "95% interval", "p", "p, corrected", "Verdict"]
    rows = []
    for d in versus.differences:
        c = d.comparison
        cells = [metric_words(d.metric), d.label, c.versus, signed(c.difference, ".4f"), _interval(c)]
        rows.append([*cells, _p(c.p), _p(c.p_holm), c.verdict])
    return header, rows


def group_cells(versus: Versus) -> Cells:
    """A row a group."""
    first, *others = [c.label for c in versus.contenders]
    header = ["Group", "cases", "users", first]
    for label in others:
        header += [label, "Difference", "95% interval", "p, corrected"]
    rows = []
    for g in versus.groups:
        row = [f"{g.dimension}: {g.group}", f"{g.n:,}", f"{g.users:,}", f"{g.means[0]:.4f}"]
        for mean, c in zip(g.means[1:], g.comparisons, strict=True):
            row += [f"{mean:.4f}", signed(c.difference, ".4f"), _interval(c), _p(c.p_holm)]
        rows.append(row)
    return header, rows


def tables(versus: Versus) -> list[tuple[str, str, Cells]]:
    """(title, caption, cells) of everything but the examples."""
    words = metric_words(versus.metric)
    compared = sum(len(g.comparisons) for g in versus.groups)
    about = {"metric": words, "first": versus.contenders[0].label, "count": compared}
    return [
        ("Results", MEAN_CAPTION, mean_cells(versus)),
        ("Differences", DIFFERENCE_CAPTION.format(count=len(versus.differences)), difference_cells(versus)),
        (f"Where they differ, by {words}", GROUP_CAPTION.format(**about), group_cells(versus)),
    ]


def history_words(example: Example) -> str:
    """The last titles of the history, oldest first."""
    if example.history is None:
        return "not known without the data set"
    left = len(example.history) - HISTORY
    return "; ".join([*([f"({left} older)"] if left > 0 else []), *example.history[-HISTORY:]])


def rank_words(shown: Shown) -> str:
    return "not in its list" if shown.rank is None else f"place {shown.rank}"


def example_words(example: Example, metric: str) -> str:
    word = "won" if example.won else "lost"
    return f"{word}: {signed(example.difference, '.4f')} {metric_words(metric)}"


def markdown(versus: Versus) -> str:
    """Everything as GitHub-flavoured Markdown."""
    lines = ["# bearray compare", "", md(headline(versus)) + ".", "", *(f"- {md(n)}" for n in versus.notes)]
    lines += [""] if versus.notes else []
    for title, caption, (header, rows) in tables(versus):
        cells = [[*map(md, row)] for row in rows]  # names come from files that others wrote
        lines += [f"## {md(title)}", "", *table_lines([*map(md, header)], cells), "", md(caption), ""]
    first = versus.contenders[0].label
    for label, examples in versus.examples.items():
        lines += [f"## {md(label)} against {md(first)}: example users", ""]
        if not examples:
            lines += ["No test case has another value.", ""]
        for e in examples:
            lines += [
                f"**Test case {e.row}, user {e.user}** {md(example_words(e, versus.metric))}",
                "",
                f"- after: {md(history_words(e))}",
                f"- target: {md(e.target)}",
                f"- {md(first)}, {rank_words(e.first)}: {_listed(e.first)}",
                f"- {md(label)}, {rank_words(e.other)}: {_listed(e.other)}",
                "",
            ]
    return "\n".join(lines).rstrip() + "\n"


def _listed(shown: Shown) -> str:
    listed = []
    for place, title in enumerate(shown.titles, 1):
        listed.append(f"{place}. " + (f"**{md(title)}**" if place == shown.rank else md(title)))
    return "; ".join(listed)


def html(versus: Versus) -> str:
    """Everything as one page; every value is escaped."""
    environment, style = environment_of(("versus.html.j2", "macros.html.j2"))
    return environment.get_template("versus.html.j2").render(
        title="bearray compare",
        style=style,
        headline=headline(versus),
        versus=versus,
        first=versus.contenders[0].label,
        tables=tables(versus),
        words={"history": history_words, "rank": rank_words, "example": example_words},
    )


def differences_csv(versus: Versus) -> str:
    """One row a metric and pair."""
    header = "metric method versus difference low high p p_holm verdict"
    rows = [(d.metric, d.label, d.comparison.versus, *_numbers(d.comparison)) for d in versus.differences]
    return to_csv(header.split(), rows)


def groups_csv(versus: Versus) -> str:
    """One row a group and run."""
    header = "metric dimension group cases users method mean versus difference low high p p_holm verdict"
    labels = [c.label for c in versus.contenders]
    rows: list[tuple[Any, ...]] = []
    for g in versus.groups:
        where = (versus.metric, g.dimension, g.group, g.n, g.users)
        rows.append((*where, labels[0], g.means[0], *(None,) * 7))
        for label, mean, c in zip(labels[1:], g.means[1:], g.comparisons, strict=True):
            rows.append((*where, label, mean, c.versus, *_numbers(c)))
    return to_csv(header.split(), rows)


def cases_csv(versus: Versus) -> str:
    """One row a test case: each run's 0-based rank of the target, empty for a miss."""
    base = versus.cases[["row", "user_id", "target", "warm"]].astype(object).to_numpy().tolist()
    ranks = [[int(r) if np.isfinite(r) else None for r in of] for of in versus.ranks.values()]
    header = ["row", "user_id", "target", "warm", *(f"rank {label}" for label in versus.ranks)]
    return to_csv(header, [[*row, *own] for row, own in zip(base, zip(*ranks, strict=True), strict=True)])


def write_versus(versus: Versus, out: Path) -> Path:
    """Write index.html, compare.md and CSV tables; the path of index.html.

    Raises:
        StorageError: they cannot be written.
    """
    texts = {
        "index.html": html(versus),
        "compare.md": markdown(versus),
        "differences.csv": differences_csv(versus),
        "groups.csv": groups_csv(versus),
        "cases.csv": cases_csv(versus),
    }
    with replaced_together(out, last="index.html") as scratch:
        write_texts(scratch, texts)
    return out / "index.html"


def _numbers(c: Comparison) -> Sequence[Any]:
    return (c.difference, c.low, c.high, c.p, c.p_holm, c.verdict)


def _interval(c: Comparison) -> str:
    return f"{signed(c.low, '.4f')} to {signed(c.high, '.4f')}"


def _p(p: float) -> str:
    return p_words(p).removeprefix("p ").removeprefix("= ")
