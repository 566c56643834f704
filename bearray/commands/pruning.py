"""`bearray pruning RUN [RUN ...]`: what beam search loses, measured on trained runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from bearray.errors import ConfigError

if TYPE_CHECKING:
    from bearray.evaluation.pool import OnShard


def pruning(
    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = (),
    *,
    windows: int | None = None,
    split: Literal["test", "valid"] = "test",
    widths: tuple[int, ...] = (20, 50, 100),
    node_budget: int | None = None,
    normalize: Literal["trie", "full"] | None = None,
    actors: int | None = None,
    data_dir: str | None = None,
    base_model: str | None = None,
    restart: bool = False,
) -> None:
    """Measure what beam search loses: pruning rates PR@5 and PR@10, their causes, wider beams and exact
    search.

    For every test case: the true rank of the target among all titles, whether and where beam search dropped
    it, and what beams of other widths and exact search make of it. Results go to RUN/pruning and into the
    report (bearray report STORAGE). Run the same command again to continue it.

    Args:
        runs: Run folders, or the storage of a sweep: of that, all runs chosen for the test.
        windows: Test cases, a random sample of the run's (default: all of them).
        split: Windows of which split.
        widths: Beam widths to compare with the run's own.
        node_budget: Prefixes that exact search may expand for one case (default: until it is proven); what
            is not proven by then is counted apart.
        normalize: Softmax over valid next tokens or the vocabulary (default: the run's own).
        actors: Processes that measure (default: as many as the cluster has room for).
        data_dir: Folder of the runs' data set, if it was moved.
        base_model: Folder of the runs' base model, if it was moved.
        restart: Throw away what was measured with other settings.
    """
    from bearray.config import differences, override, to_dict
    from bearray.evaluation.pool import pool_size
    from bearray.evaluation.pruning import Analysis, analyse_run, begin_measuring, forget
    from bearray.method_names import method_name
    from bearray.trained import trained_runs
    from bearray.tuning.cluster import connect
    from bearray.tuning.watch import say

    if not runs:
        raise ConfigError("no run is given; give run folders or the storage of a sweep")
    analysis = Analysis(
        split=split, windows=windows, widths=widths, node_budget=node_budget, normalize=normalize
    )
    work = []
    for run in trained_runs(runs):
        config = analysis.settings(run, data_dir=data_dir, base_model=base_model)
        config = override(config, {"evaluation.actors": actors or config.evaluation.actors})
        folder = analysis.folder(run)
        if restart:
            forget(folder)
        table = begin_measuring(config, run.checkpoint, folder, **analysis.options())
        work.append((run, config, table))
        for change in differences(to_dict(run.config.decoding), to_dict(config.decoding), "decoding"):
            say(f"{run.name}: measured with other settings than its own: {change}")
    if any(table.missing() for _, _, table in work):
        connect()
        for _, config, _ in work:
            pool_size(config, 1)
    for run, config, table in work:
        method = method_name(run.method)
        with _progress(f"{run.name} ({method})", table.shards) as on_shard:
            found = analyse_run(run, config, analysis, on_shard=on_shard)
        _print(f"{method} on {run.dataset}, {run.base_model} ({run.name})", found)
        say(f"written to {table.folder.root}")


@contextmanager
def _progress(name: str, shards: int) -> Iterator[OnShard]:
    """A bar on a terminal, lines in a log."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from bearray.terminal import text_column
    from bearray.tuning.watch import console, say

    if not console.is_terminal:
        say(f"{name}: {shards} shard{'s' * (shards != 1)}")
        yield lambda done, total: say(f"{name}: shard {done}/{total}")
        return
    columns = (text_column(), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"{name}, shards", total=shards)
        yield lambda done, _: bar.update(task, completed=done)


def _print(title: str, found: Mapping[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from bearray.report.pruning import parse_row
    from bearray.report.pruning_text import causes, rate, search_cells
    from bearray.terminal import terminal
    from bearray.tuning.watch import console

    row, settings = parse_row(title, found), found["settings"]
    console.print()
    console.print(Text(title, style="bold"))
    console.print(
        f"{row.n} {settings['split']} cases of {row.users} users, beam {row.beam_width}, "
        f"{settings['normalize']}; the true rank is proven for {row.rank_proven:.1%}"
    )
    for r in row.rates:
        unknown = f"; {r.unknown} cases not proven and left out of exact" if r.unknown else ""
        console.print(Text(f"PR@{r.k}: exact {rate(r.exact)}; pool {rate(r.pool)}{unknown}"))
    console.print(Text(causes(row)))
    table = Table(box=None, pad_edge=False)
    header, lines = search_cells([row])
    for name in header[1:]:
        table.add_column(name, justify="left" if name == "search" else "right")
    for line in lines:
        table.add_row(*map(Text, line[1:]))
    # A log has no width, and numbers are not to be broken over lines.
    terminal(width=max(console.width, 110)).print(table)
