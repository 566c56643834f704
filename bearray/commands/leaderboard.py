"""`bearray leaderboard STORAGE ...`: all runs of all storages in one table, or for other tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from bearray.config import Decoded
from bearray.errors import ConfigError

if TYPE_CHECKING:
    from bearray.report.leaderboard import Board
    from bearray.report.records import Run


def leaderboard(
    storages: Positional[tuple[str, ...]],
    *,
    dataset: tuple[str, ...] = (),
    method: tuple[str, ...] = (),
    base_model: tuple[str, ...] = (),
    status: tuple[str, ...] = (),
    decoding: Decoded | None = None,
    sort: Literal[
        "ndcg@10", "hr@10", "ndcg@5", "hr@5", "hr@1", "valid", "method", "base-model", "seconds", "created"
    ] = "ndcg@10",
    format: Literal["table", "markdown", "csv", "latex", "json"] = "table",
    out: Path | None = None,
    runs_out: Path | None = None,
) -> None:
    """List the runs of storage folders with settings, metrics, status and cost. Runs that were tested on
    other data or other cases stand in tables of their own; seeds of a method are one row.

    Args:
        storages: Storage folders of sweeps or URIs; run folders are found anywhere under them.
        dataset: Only runs on these data sets.
        method: Only these methods.
        base_model: Only these base models, as the table calls them.
        status: Only runs that are so, for example finished.
        decoding: Only runs that were tested by this, with its numbers (default: each run's own way).
            Baselines have one result, which stands for all.
        sort: A test metric, valid (validation NDCG@10), or a column.
        format: How the tables are written.
        out: A file to write them to (default: standard output).
        runs_out: A folder for every test case's list, as TREC run and qrels files for ranx or ir-measures.
    """
    from bearray.report.leaderboard import build_boards, chosen_runs, gather
    from bearray.report.leaderboard_text import as_json, csv, latex, markdown
    from bearray.report.trec import write_trec

    if not storages:
        raise ConfigError(
            "no storage is given; give the storage folder of a sweep (its --storage), or several"
        )
    if out is not None and format == "table":
        raise ConfigError("--out needs --format markdown, csv, latex or json; a table is for the terminal")
    with ExitStack() as stack:
        runs = _gather(storages, stack, gather)
    wanted = {"dataset": dataset, "method": method, "base_model": base_model, "status": status}
    boards = build_boards(chosen_runs(runs, wanted, decoding), decoding=decoding, sort=sort)
    if format == "table":
        _print(boards)
    else:
        write = {"markdown": markdown, "csv": csv, "latex": latex, "json": as_json}[format]
        _write(write(boards), out)
    if runs_out is not None:
        for folder in write_trec(boards, runs_out, decoding=decoding):
            print(folder)


def _gather(
    storages: Sequence[str],
    stack: ExitStack,
    gather: Callable[[Sequence[tuple[str, Path]]], list[Run]],
) -> list[Run]:
    from bearray.report.anywhere import NOT_READ
    from bearray.runs import Storage, fetch_folder

    roots = list(dict.fromkeys(Storage(place).root.rstrip("/") for place in storages))
    names = [root.rpartition("/")[2] for root in roots]
    return gather(
        [
            (
                name if names.count(name) == 1 else root,
                stack.enter_context(fetch_folder(root, without=NOT_READ)),
            )
            for name, root in zip(names, roots, strict=True)
        ]
    )


def _write(text: str, out: Path | None) -> None:
    from bearray.report.files_out import replaced_together, write_texts

    if out is None:
        print(text, end="")
        return
    with replaced_together(out.parent, last=out.name) as scratch:
        write_texts(scratch, {out.name: text})
    print(out)


def _print(boards: Sequence[Board]) -> None:
    from rich.table import Table
    from rich.text import Text

    from bearray.plain import printable
    from bearray.report.leaderboard_text import APART, CAPTION, cells, fitting, title
    from bearray.terminal import terminal

    console = terminal()
    # A log has no width, and numbers are not to be broken over lines.
    wide = console if console.is_terminal else terminal(width=10_000)
    for board in boards:
        (header, rows), left_out = fitting(cells(board), wide.width)
        console.print(Text(printable(title(board)), style="bold"), soft_wrap=True)
        for note in board.notes:
            console.print(Text(f"note: {note}"), soft_wrap=True)
        table = Table(box=None, pad_edge=False)
        for name in header:
            numeric = name == "#" or "@" in name or name in ("validation", "training", "total")
            table.add_column(
                Text(name), justify="right" if numeric else "left", no_wrap=name != "run", overflow="fold"
            )
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        wide.print(table)
        if left_out:
            more = f"Without {', '.join(left_out)}, for which a wider terminal or --format csv has room."
            console.print(Text(more, style="dim"), soft_wrap=True)
        console.print()
    if len(boards) > 1:
        console.print(Text(APART), soft_wrap=True)
    console.print(Text(CAPTION, style="dim"), soft_wrap=not console.is_terminal)
