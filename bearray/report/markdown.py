"""The report as Markdown: the answer, the tables and the searches."""

from __future__ import annotations

from collections.abc import Sequence

from bearray.plain import printable
from bearray.report.cells import METRICS, NORMALIZER_WORDS, POPULATION_WORDS, Row, Table, metric_words
from bearray.report.formats import legend, mark, setting, spread
from bearray.report.headline import Headline
from bearray.report.published import Published
from bearray.report.search import Search


def markdown(
    title: str,
    headlines: Sequence[Headline],
    pairs: Sequence[tuple[Table, Published]],
    searches: Sequence[Search],
    departures: Sequence[str],
    sections: Sequence[str] = (),
    overview: Sequence[str] = (),
) -> str:
    """The answer, the tables and the searches as GitHub-flavoured Markdown.

    `overview` are lines put before the tables, `sections` those of further sections, before the departures.
    """
    lines = [f"# {md(title)}", ""]
    for h in headlines:
        lines += [
            f"**{md(h.dataset)}, {md(h.base_model)}: {md(h.verdict)}**",
            "",
            *(f"- {md(d)}" for d in h.details),
            "",
        ]
    if not headlines:
        lines += ["No run has test results yet.", ""]
    lines += overview
    for table, published in pairs:
        lines += [f"## {md(table.dataset)}, {md(table.base_model)}, {NORMALIZER_WORDS[table.normalize]}", ""]
        for part in table.parts:
            lines += [
                f"**{POPULATION_WORDS[part.population]}**",
                "",
                *_markdown_part(part.rows, table.seeded),
                "",
            ]
        lines += [md(legend(table)), "", *(f"- {md(note)}" for note in table.notes), ""]
        lines += [md(published.sentence), ""]
        if published.rows:
            lines += [*_markdown_published(published), ""]
    for s in searches:
        lines += [
            f"## Search: {md(s.name)} on {md(s.dataset)}, {md(s.base_model)}",
            "",
            *_markdown_search(s),
            "",
        ]
    lines += sections
    if departures:
        lines += ["## Departures from the paper's settings", "", *(f"- {md(d)}" for d in departures), ""]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_part(rows: Sequence[Row], seeded: bool) -> list[str]:
    head = ["Method", *(metric_words(m) for m in METRICS), "n", "users", *(["seeds"] if seeded else [])]
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    for row in rows:
        cells = []
        for m in METRICS:
            c = row.cells[m]
            mean = f"{c.mean:.4f}"
            mean = {1: f"**{mean}**", 2: f"<ins>{mean}</ins>"}.get(c.place, mean)
            cells.append(f"{mean}{md(mark(c))} [{c.low:.4f}, {c.high:.4f}]{spread(c)}")
        counts = [row.n, row.users, *([row.seeds] if seeded else [])]
        lines.append(_line([md(row.label), *cells, *map(str, counts)]))
    return lines


def _markdown_published(published: Published) -> list[str]:
    metrics = METRICS[:4]
    lines = [_line(["Method", *(f"{metric_words(m)} published / ours" for m in metrics)])]
    lines.append(_line(["---", *["---:"] * len(metrics)]))
    for row in published.rows:
        ours = [f"{row.ours.cells[m].mean:.4f}" if row.ours else "–" for m in metrics]
        cells = [f"{row.values[m]:.4f} / {o}" for m, o in zip(metrics, ours, strict=True)]
        lines.append(_line([md(row.method), *cells]))
    return lines


def _markdown_search(search: Search) -> list[str]:
    lines = [_line(["Trial", *(md(a) for a in search.axes), "validation NDCG@10", "status"])]
    lines.append(_line(["---", *["---:"] * (len(search.axes) + 1), "---"]))
    for t in search.trials:
        status = "chosen" if t.chosen else t.run.status
        value = "–" if t.ndcg is None else f"{t.ndcg:.4f}"
        lines.append(_line([md(t.run.id), *(md(setting(t.settings[a])) for a in search.axes), value, status]))
    return lines


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table with its first column to the left; cells must be Markdown already."""
    return [_line(header), _line(["---", *["---:"] * (len(header) - 1)]), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def md(text: str) -> str:
    """Text in which nothing is markup: neither Markdown nor HTML."""
    flat = printable(str(text))
    for char in "\\`*_[]<>|#":
        flat = flat.replace(char, "\\" + char)
    return flat.replace("&", "&amp;")
