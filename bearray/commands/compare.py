"""`bearray compare RUN RUN ...`: paired differences of runs, where they differ, and for whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from bearray.config import Decoded
from bearray.errors import ConfigError, MissingFileError

if TYPE_CHECKING:
    from bearray.report.records import Run
    from bearray.report.versus import Versus


def compare(
    runs: Positional[tuple[str, ...]],
    *,
    metric: str = "ndcg@10",
    decoding: Decoded | None = None,
    examples: int = 3,
    out: Path | None = None,
    data_dir: str | None = None,
    base_model: str | None = None,
) -> None:
    """Compare runs that were tested on the same cases: paired differences over users with intervals and
    corrected tests, groups of test cases in which they differ, and the users with the largest wins and
    losses. The first run is the one that the others are held against.

    Args:
        runs: Run folders or URIs, two or more.
        metric: hr@K or ndcg@K, by which groups and example users are shown.
        decoding: How the test cases were decoded: a normaliser, exact search, or length penalty 1 (default:
            as the first run was that is no baseline). A baseline has one result, which stands for all.
        examples: Users shown of the largest wins, and of the largest losses, of each run.
        out: Write HTML, Markdown and CSV into this folder, too.
        data_dir: Folder of the runs' data set, if it was moved; without it there are no titles.
        base_model: Folder of the base model whose tokens show a title's path, if it was moved.
    """
    from bearray.report.background import Backgrounds
    from bearray.report.versus import compare_runs
    from bearray.report.versus_text import write_versus

    if examples < 0:
        raise ConfigError(f"--examples is {examples}; it must be 0 or more")
    versus = compare_runs(
        _read(runs),
        metric=metric,
        decoding=decoding,
        examples=examples,
        backgrounds=Backgrounds(data_dir),
        base_model=base_model,
    )
    _print(versus)
    if out is not None:
        print(write_versus(versus, out))


def _read(places: Sequence[str]) -> Sequence[Run]:
    from bearray.report.anywhere import NOT_READ
    from bearray.report.collect import read_run, short_models
    from bearray.runs import Storage, fetch_folder

    roots = [Storage(place).root.rstrip("/") for place in places]
    twice = [place for place, times in Counter(roots).items() if times > 1]
    if twice:
        raise ConfigError(f"{twice[0]} is given more than once; a run does not differ from itself")
    names = [root.rpartition("/")[2] for root in roots]
    found = []
    with ExitStack() as stack:
        for root, name in zip(roots, names, strict=True):
            storage = Storage(root)
            if not storage.exists("config.json"):
                what = "has no config.json" if storage.exists() else "does not exist"
                raise MissingFileError(
                    f"{root} {what}; give run folders, which are in the runs folder of a sweep's storage"
                )
            folder = stack.enter_context(fetch_folder(root, without=NOT_READ))
            found.append(read_run(folder, name if names.count(name) == 1 else root))
    return short_models(found)


def _print(versus: Versus) -> None:
    from rich.table import Table
    from rich.text import Text

    from bearray.plain import printable
    from bearray.report.versus_text import example_words, headline, history_words, rank_words, tables
    from bearray.terminal import terminal

    console = terminal()
    # A log has no width, and numbers are not to be broken over lines.
    wide = console if console.is_terminal else terminal(width=10_000)
    console.print(Text(headline(versus)), soft_wrap=True)
    for note in versus.notes:
        console.print(Text(f"note: {printable(note)}"), soft_wrap=True)
    for title, caption, (header, rows) in tables(versus):
        console.print()
        console.print(Text(title, style="bold"))
        table = Table(box=None, pad_edge=False)
        names = {"Metric", "Method", "Against", "Verdict", "Group", "run", "base model"}
        for name in header:
            table.add_column(Text(printable(name)), justify="left" if name in names else "right")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        wide.print(table)
        console.print(Text(caption, style="dim"), soft_wrap=not console.is_terminal)
    first = versus.contenders[0].label
    for label, examples in versus.examples.items():
        console.print()
        console.print(Text(f"{printable(label)} against {printable(first)}: example users", style="bold"))
        for e in examples:
            lines = [
                f"test case {e.row}, user {e.user}, {example_words(e, versus.metric)}",
                f"  after: {history_words(e)}",
                f"  target: {e.target}",
            ]
            for name, shown in ((first, e.first), (label, e.other)):
                lines.append(f"  {name}: {rank_words(shown)}")
                lines += [
                    f"    {'*' if place == shown.rank else ' '}{place:>2} {title}"
                    for place, title in enumerate(shown.titles, 1)
                ]
            for line in lines:
                indent = line[: len(line) - len(line.lstrip())]
                console.print(Text(indent + printable(line)), soft_wrap=True)
