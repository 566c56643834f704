"""Per-user results as TREC run and qrels files, which ranx, ir-measures and trec_eval read.

    run:    query Q0 document rank score tag        qrels:    query 0 document 1

A query is a test case (`q17-u402`: row 17 of the test sample, user 402), since a user may have several. A
document is an item; an item stands for all that share its title, so where any run has found the target's
title, the relevant document is the item that its list has there. Scores are not the models': those can be
equal, and other tools break ties by name. They fall from the length of the list to 1 instead, so that every
tool sees our order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bearray.errors import ConfigError, DataError
from bearray.report.files_out import replaced_together, write_texts
from bearray.report.formats import to_csv
from bearray.report.leaderboard import Board
from bearray.report.records import ALL_TITLES, Run
from bearray.report.rows import same_cases

QRELS, INDEX, CASES = "qrels.txt", "runs.csv", "cases.csv"


def write_trec(boards: Sequence[Board], out: Path, *, decoding: str | None = None) -> list[Path]:
    """Write a folder for each set of test cases: qrels.txt, a .run file for every run and way of decoding,
    runs.csv (what each file is) and cases.csv (what each query is).

    Args:
        boards: those without a test have nothing to write.
        out: the folder above.
        decoding: only this one; None: all that the runs were tested with.

    Returns:
        The folders.

    Raises:
        ConfigError: there is something in `out` already, which would be taken for part of the export.
        DataError: predictions without lists, or of other test cases than the run's own decoding.
        StorageError: the files cannot be written.
    """
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty; give a new folder, so that no other run stands beside these")
    texts: dict[str, str] = {}
    folders: list[Path] = []
    for board in boards:
        frames = _frames(board, decoding)
        if not frames:
            continue
        folder = f"{len(folders) + 1}-{_slug(board.dataset)}"
        folders.append(out / folder)
        queries = _queries(frames[0][2])
        texts |= {f"{folder}/{name}": text for name, text in _files(frames, queries).items()}
    with replaced_together(out, last="") as scratch:
        write_texts(scratch, texts)
    return folders


def _frames(board: Board, decoding: str | None) -> list[tuple[Run, str, pd.DataFrame]]:
    found = [
        (run, ALL_TITLES if run.is_baseline else name, frame)
        for entry in board.entries
        for run in entry.runs
        for name, frame in run.predictions.items()
        if decoding in (None, name) or run.is_baseline
    ]
    if len({same_cases(run, frame) for run, _, frame in found}) > 1:
        first = same_cases(found[0][0], found[0][2])
        run, name, _ = next(one for one in found if same_cases(one[0], one[2]) != first)
        raise DataError(f"{run.id} was decoded ({name}) on other test cases than {found[0][0].id}")
    return found


def _files(frames: Sequence[tuple[Run, str, pd.DataFrame]], queries: Sequence[str]) -> dict[str, str]:
    tags = _distinct([_slug(f"{run.method} {run.id.rpartition('/')[2]} {name}") for run, name, _ in frames])
    relevant = frames[0][2]["target"].to_numpy(dtype=np.int64).copy()
    texts, index = {}, []
    for tag, (run, name, frame) in zip(tags, frames, strict=True):
        lines = []
        for case, (query, items, rank) in enumerate(zip(queries, frame["items"], frame["rank"], strict=True)):
            listed = [int(item) for item in items if item >= 0]
            if np.isfinite(rank):
                if rank >= len(listed):
                    raise DataError(
                        f"{run.id}, test case {frame['row'].iat[case]} ({name}): the target has rank "
                        f"{rank:.0f}, but the list has {len(listed)} items"
                    )
                relevant[case] = listed[int(rank)]
            lines += [
                f"{query} Q0 {item} {place} {len(listed) + 1 - place} {tag}\n"
                for place, item in enumerate(listed, 1)
            ]
        texts[f"{tag}.run"] = "".join(lines)
        index.append((f"{tag}.run", tag, run.id, run.method, run.base_model, name, run.seed))
    texts[QRELS] = "".join(f"{q} 0 {item} 1\n" for q, item in zip(queries, relevant.tolist(), strict=True))
    texts[INDEX] = to_csv(["file", "tag", "run", "method", "base_model", "decoding", "seed"], index)
    first = frames[0][2]
    cases = first[["row", "user_id", "target", "warm"]].astype(object).to_numpy().tolist()
    header = ["query", "row", "user_id", "target", "warm"]
    texts[CASES] = to_csv(header, [[q, *row] for q, row in zip(queries, cases, strict=True)])
    return texts


def _queries(frame: pd.DataFrame) -> list[str]:
    return [f"q{row}-u{user}" for row, user in zip(frame["row"], frame["user_id"], strict=True)]


def _slug(text: str) -> str:
    """A name without white space or signs: it is a file's, and a field between blanks."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:80].strip("-") or "x"


def _distinct(names: Sequence[str]) -> list[str]:
    counts, seen = Counter(names), Counter[str]()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if counts[name] == 1 else f"{name}--{seen[name]}")
    return found
