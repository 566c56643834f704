"""What is fuzzed of whole storages: comparing runs, a leaderboard of them, how far a sweep is."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.fuzz.printed import printed, strict_json
from tests.fuzz.reader import Reader, damage_in
from tests.fuzz.trained_run import DATA
from tests.fuzz.values import TEXTS


def _compared(folder: Path) -> None:
    """Three runs tested on the same cases of a data set that lies beside them."""
    from tests.data.conftest import write_layout
    from tests.report.storage import write_run_on

    write_layout(folder / DATA)
    more: dict[str, Any] = {"epochs": 1}
    for seed, method in enumerate(("SFT", "BEAR", "SFT")):
        run = folder / "runs" / f"{method.lower()}-{seed}"
        write_run_on(
            run, folder / DATA, method=method, hit=0.7, seed=seed, changes={"train.seed": seed}, **more
        )
        config = json.loads((run / "config.json").read_text())
        config["run"]["data"]["path"] = DATA  # the same text wherever the sample lies
        (run / "config.json").write_text(json.dumps(config))
        lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
        (run / "metrics.jsonl").write_text("".join(lines[-3:]))


def _compare(folder: Path, rng: random.Random) -> None:
    from bearray.commands.compare import compare

    runs = [str(folder / "runs" / name) for name in ("sft-0", "bear-1", "sft-2")][: rng.choice((2, 2, 3))]
    out = folder.parent / "out" if rng.random() < 0.6 else None
    options = {
        "metric": rng.choice(("ndcg@10", "hr@1")) if rng.random() < 0.9 else rng.choice(TEXTS),
        "decoding": rng.choice((None, None, None, None, "trie", "exact")),
        "examples": rng.choice((3, 0, 1, -1)),
        "data_dir": str(folder / DATA) if rng.random() < 0.6 else None,
    }
    with printed() as text:
        try:
            compare(tuple(runs), out=out, **options)
        except BaseException:
            left = [p.name for p in (out.rglob("*") if out is not None else ())]
            assert not left, f"a comparison that failed left {left}"
            raise
    assert text().strip()
    if out is not None:
        (page,) = out.glob("*.html")
        assert page.read_text(encoding="utf-8").rstrip().endswith("</html>")


def _leaderboard(folder: Path, rng: random.Random) -> None:
    from bearray.commands.leaderboard import leaderboard

    form = rng.choice(("table", "markdown", "csv", "latex", "json", "json"))
    out = folder.parent / "out" / "board" if form != "table" and rng.random() < 0.5 else None
    trec = folder.parent / "trec" if rng.random() < 0.5 else None
    options: dict[str, Any] = {
        "sort": rng.choice(("ndcg@10", "hr@1", "valid", "method", "base-model", "seconds", "created")),
        "decoding": rng.choice((None, None, None, "trie", "trie", "full")),
        "method": rng.choice(((), (), (), ("sft",), ("bear", "sft"), ("x",))),
    }
    with printed() as text:
        try:
            leaderboard((str(folder),), format=form, out=out, runs_out=trec, **options)
        except BaseException:
            left = [p for p in (trec.rglob("*") if trec is not None else ()) if p.is_file()]
            assert not left, f"an export that failed left {left}"
            raise
    board = out.read_text(encoding="utf-8") if out is not None else text()
    assert board.strip()
    if form == "json" and (out is not None or trec is None):  # else the folders of the export stand behind it
        strict_json(board)


def _progress(folder: Path) -> None:
    from tests.jobs.stored import make_paper

    make_paper(folder)


def _status(folder: Path, rng: random.Random) -> None:
    from bearray.commands.jobs import status
    from tests.jobs.stored import PART

    as_json = rng.random() < 0.3
    with printed() as text:
        status(storage=str(folder / rng.choice(("", PART))), json=as_json)
    if as_json:
        strict_json(text())
    else:
        assert text().startswith(("sweep on ", "paper in "))
        assert all(sign.isprintable() or sign == "\n" for sign in text()), "signs that a terminal obeys"


STORAGE_READERS: tuple[Reader, ...] = (
    Reader("compare", _compared, _compare, damage=damage_in("runs"), also_draws=True),
    Reader("jobs-status", _progress, _status),
    Reader("leaderboard", _compared, _leaderboard, damage=damage_in("runs"), also_draws=True),
)
