"""Leaderboards as Markdown, CSV, LaTeX and JSON, and as cells for the terminal, from the same numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bearray.method_names import method_name
from bearray.report.cells import METRICS, metric_words
from bearray.report.formats import to_csv
from bearray.report.headline import seconds
from bearray.report.latex import text_table
from bearray.report.leaderboard import Board, Entry, Score
from bearray.report.markdown import md, table_lines

Cells = tuple[list[str], list[list[str]]]
"""Column names and rows."""

WITH_INTERVAL = ("ndcg@10", "hr@10")
ONLY_MEAN = ("ndcg@5", "hr@5", "hr@1")
CAPTION = (
    "Test metrics: mean over test cases; in brackets the 95% interval over users; ± the standard "
    "deviation over seeds. Intervals that overlap do not say that runs are alike, nor places that "
    "they differ: bearray compare tests two runs. Validation: NDCG@10 of the best epoch. Times are "
    "means over seeds; of several seeds' runs the first is named."
)
_FIRST_TO_GO = (
    *(metric_words(m) for m in reversed(ONLY_MEAN)),
    *("total", "training", "seeds", "decoded", "base model", "validation", "status", "settings"),
    metric_words(WITH_INTERVAL[1]),
)
APART = "Runs on other data or other test cases stand in tables of their own and are not ranked together."


def title(board: Board) -> str:
    """Which data and test cases."""
    data = f"data {board.data_hash[:12]}" if board.data_hash else "unknown data"
    if board.cases is None:
        return f"{board.dataset} ({data}), not tested"
    return f"{board.dataset} ({data}), {board.cases:,} test cases of {board.users:,} users"


def cells(board: Board) -> Cells:
    """A row an entry; columns in which no entry has anything are left out."""
    header = ["#", "Method", "base model", "seeds", "settings", "decoded"]
    header += [metric_words(m) for m in (*WITH_INTERVAL, *ONLY_MEAN)]
    header += ["validation", "status", "training", "total", "run"]
    rows = [_row(entry) for entry in board.entries]
    empty = [n for n in range(len(header)) if all(row[n] in ("", "–") for row in rows)]
    keep = [n for n in range(len(header)) if n not in empty]
    return [header[n] for n in keep], [[row[n] for n in keep] for row in rows]


def fitting(table: Cells, width: int) -> tuple[Cells, list[str]]:
    """The columns that fit side by side into so many characters, and the names of those left out, the least
    telling ones first. A run's name is kept: with it the others can be looked up."""
    header, rows = table
    widths = {
        name: max(len(name), *(len(row[n]) for row in rows)) + len("  ") for n, name in enumerate(header)
    }
    widths["run"] = min(widths["run"], max(24, width // 3))  # a long one may take several lines
    left: list[str] = []
    for name in (n for n in _FIRST_TO_GO if n in widths):
        if sum(widths.values()) - len("  ") <= width:
            break
        del widths[name]
        left.append(name)
    keep = [n for n, name in enumerate(header) if name in widths]
    return ([header[n] for n in keep], [[row[n] for n in keep] for row in rows]), left


def _row(entry: Entry) -> list[str]:
    run, scores = entry.run, entry.scores
    role = " (trial, chosen)" if run.chosen and run.role == "trial" else " (trial)" * (run.role == "trial")
    return [
        "–" if entry.place is None else str(entry.place),
        method_name(run.method),
        run.base_model,
        ", ".join(str(r.seed) for r in entry.runs if r.seed is not None),
        ", ".join(f"{n.rpartition('.')[2]} {v}" for n, v in entry.settings.items()),
        entry.decoding or "–",
        *(_score(scores[m]) if scores else "–" for m in WITH_INTERVAL),
        *(f"{scores[m].mean:.4f}" if scores else "–" for m in ONLY_MEAN),
        "–" if entry.valid is None else f"{entry.valid:.4f}",
        run.status + role,
        "–" if entry.train_seconds is None else seconds(entry.train_seconds),
        "–" if entry.total_seconds is None else seconds(entry.total_seconds),
        run.id + (f" +{len(entry.runs) - 1}" if len(entry.runs) > 1 else ""),
    ]


def _score(score: Score) -> str:
    sd = "" if score.seed_sd is None else f" ±{score.seed_sd:.4f}"
    return f"{score.mean:.4f} [{score.low:.4f}, {score.high:.4f}]{sd}"


def markdown(boards: Sequence[Board]) -> str:
    """Tables in GitHub-flavoured Markdown."""
    lines = ["# Leaderboard", "", *([APART, ""] if len(boards) > 1 else [])]
    for board in boards:
        header, rows = cells(board)
        body = [[*map(md, row)] for row in rows]  # names come from files that others wrote
        lines += [f"## {md(title(board))}", "", *table_lines([*map(md, header)], body), ""]
        lines += [*(f"- {md(note)}" for note in board.notes), *([""] if board.notes else [])]
    return "\n".join([*lines, md(CAPTION)]) + "\n"


def latex(boards: Sequence[Board]) -> str:
    """A table environment in the booktabs style for each board."""
    lines = [r"% needs \usepackage{booktabs}"]
    for board in boards:
        header, rows = cells(board)
        lines += text_table(f"{title(board)}. {' '.join([CAPTION, *board.notes])}", header, rows, columns="l")
    return "\n".join(lines) + "\n"


def csv(boards: Sequence[Board]) -> str:
    """One row an entry, in plain numbers; `table` says which may be ranked against each other."""
    rows = [plain(board, number, entry) for number, board in enumerate(boards, 1) for entry in board.entries]
    flat = []
    for row in rows:
        scores, settings = row.pop("scores"), row.pop("settings")
        row["seeds"], row["runs"] = (", ".join(map(str, row[name])) for name in ("seeds", "runs"))
        row["settings"] = ", ".join(f"{name}={value}" for name, value in settings.items())
        for metric in METRICS:
            own = scores.get(metric, {})
            row |= {metric: own.get("mean")}
            row |= {f"{metric} {name}": own.get(name) for name in ("low", "high", "seed_sd")}
        flat.append(row)
    return to_csv(list(flat[0]), [list(row.values()) for row in flat])


def as_json(boards: Sequence[Board]) -> str:
    """A list of boards, each with its entries, in plain numbers."""
    found = [
        {
            "dataset": board.dataset,
            "data_hash": board.data_hash,
            "cases": board.cases,
            "users": board.users,
            "notes": list(board.notes),
            "entries": [plain(board, number, entry) for entry in board.entries],
        }
        for number, board in enumerate(boards, 1)
    ]
    return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def plain(board: Board, number: int, entry: Entry) -> dict[str, Any]:
    """An entry as plain values."""
    run = entry.run
    return {
        "table": number,
        "place": entry.place,
        "method": run.method,
        "base_model": run.base_model,
        "base_model_kind": run.base_model_kind,
        "dataset": run.dataset,
        "data_hash": run.data_hash,
        "cases": board.cases if entry.decoding else None,
        "decoding": entry.decoding,
        "seeds": [r.seed for r in entry.runs],
        "settings": dict(entry.settings),
        "scores": {
            metric: {"mean": s.mean, "low": s.low, "high": s.high, "seed_sd": s.seed_sd}
            for metric, s in entry.scores.items()
        },
        "valid_ndcg@10": entry.valid,
        "status": run.status,
        "reason": run.reason,
        "role": run.role,
        "chosen": run.chosen,
        "train_seconds": entry.train_seconds,
        "total_seconds": entry.total_seconds,
        "created": run.created,
        "runs": [r.id for r in entry.runs],
    }
