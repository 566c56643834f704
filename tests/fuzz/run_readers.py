"""What is fuzzed of trained runs: opening and exporting them, asking them, comparing them."""

from __future__ import annotations

import contextlib
import io
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

from bearray.errors import BearrayError
from tests.fuzz.files import damage
from tests.fuzz.reader import Reader, nothing, undamaged
from tests.fuzz.trained_run import (
    BASE,
    CHECKPOINT,
    DATA,
    RUN,
    good_recommender,
    open_sample,
    write_trained_run,
)
from tests.fuzz.values import NUMBERS, TEXTS, changed, json_text, weird

_TITLES = ["Red Fox", "Blue Whale", "Red Panda", "Gray Wolf"]


def _refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def strict_json(text: str | bytes) -> Any:
    """JSON without NaN and Infinity, which no other reader takes."""
    return json.loads(text, parse_constant=_refuse_constant)


@contextlib.contextmanager
def printed() -> Iterator[Callable[[], str]]:
    """What is printed meanwhile, through UTF-8 as in a terminal."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)

    def text() -> str:
        return out.buffer.getvalue().decode()  # type: ignore[attr-defined]

    with contextlib.redirect_stdout(out):
        yield text


# --- a run folder, and an export of it


def _damage_in(*names: str) -> Callable[[Path, random.Random], str]:
    """Only in these folders of the sample: the others have readers of their own."""
    return lambda folder, rng: damage(folder / rng.choice(names), rng)


def _check_lists(found: Sequence[Any]) -> None:
    from bearray.serving.recommender import plain

    for row in found:
        assert row.items, "a list without titles"
        assert all(math.isfinite(item.score) for item in row.items), "a score that is no number"
        json.dumps(plain(row), allow_nan=False).encode()


def _open_or_export(folder: Path, rng: random.Random) -> None:
    if rng.random() < 0.5:
        _check_lists(open_sample(folder).recommend([["Red Fox"], ["Gray Wolf", "Blue Whale"]], k=2))
        return
    from bearray.serving import open_recommender
    from bearray.serving.export import export_run

    out, before = folder.parent / "out", sorted(p.name for p in folder.parent.iterdir())
    kept = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    try:
        export_run(str(folder / RUN), out, data_dir=str(folder / DATA), base_model=str(folder / BASE))
    except BaseException:
        assert sorted(p.name for p in folder.parent.iterdir()) == before, "a failed export left something"
        raise
    finally:
        assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == kept
    strict_json((out / "bearray.json").read_bytes())
    assert (out / "README.md").read_text(encoding="utf-8").startswith("---\nlibrary_name")
    _check_lists(open_recommender(str(out), device="cpu").recommend([["Red Fox"]], k=2))


def _export(folder: Path) -> None:
    from bearray.serving.export import export_run

    write_trained_run(folder)
    export_run(str(folder / RUN), folder / "out", data_dir=str(folder / DATA), base_model=str(folder / BASE))


def _open_export(folder: Path, rng: random.Random) -> None:
    from bearray.serving import open_recommender

    found = open_recommender(str(folder / "out"), device="cpu")
    titles = found.catalog.titles
    _check_lists(found.recommend([[titles[rng.randrange(len(titles))]]], k=min(2, len(titles))))


# --- histories, as `bearray recommend` takes them


def _histories(folder: Path) -> None:
    rows: list[Any] = [["Red Fox"], "Blue Whale; Red Panda", ["Gray Wolf", "Red Fox", "Red Fox"], "1; 2"]
    lines = [{"history": row, "user": f"u{n}"} for n, row in enumerate(rows)]
    (folder / "asked.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (folder / "asked.csv").write_text("user,history\nu1,Red Fox;Blue Whale\nu2,Gray Wolf\n,3; 4\n")


def _recommend(folder: Path, rng: random.Random) -> None:
    from bearray.commands.recommend import recommend

    texts = (*_TITLES, *TEXTS, "\udcff", "1", "3", ";", "red fox", "9" * 5_000)
    typed = tuple(
        ";".join(
            rng.choice(_TITLES if rng.random() < 0.8 else texts) for _ in range(rng.choice((1, 1, 2, 5, 300)))
        )
        for _ in range(rng.choice((0, 0, 1, 2)))
    )
    files = [folder / "asked.jsonl", folder / "asked.csv", None]
    options: dict[str, Any] = {
        "histories": rng.choice(files) if typed else rng.choice(files[:2]),
        "item_ids": rng.random() < 0.15,
        "k": rng.choice((None, None, None, 1, 2, 4, rng.choice(NUMBERS[:6]))),
        "exclude_history": rng.random() < 0.2,
        "unknown_titles": rng.random() < 0.6,
        "normalize": rng.choice((None, "trie", "full")),
        "exact": rng.random() < 0.2,
        "json": rng.random() < 0.6,
    }
    if options["exact"]:
        options["node_budget"] = rng.choice((None, 0, -1, 1, 10**30))
    recommender = good_recommender()
    opened = mock.patch("bearray.serving.open_recommender", lambda *a, **k: recommender)
    with printed() as text, opened:
        try:
            recommend(run="run", history=typed, **options)
        except BearrayError:
            assert not (options["json"] and text()), "lists before a refusal"
            raise
    if not options["json"]:
        assert all(sign.isprintable() or sign == "\n" for sign in text()), "signs that a terminal obeys"
    else:
        lines = text().split("\n")[:-1]
        assert lines and all("recommendations" in strict_json(line) for line in lines)


# --- requests, as `bearray serve` takes them


@lru_cache(maxsize=1)
def _service() -> Any:
    from bearray.serving.service import Limits, Service

    limits = Limits(request_bytes=20_000, histories=4, titles=20, title_characters=200, exact_nodes=50)
    return Service(good_recommender(), limits)


def _body(rng: random.Random) -> bytes:
    asked: dict[str, Any] = {
        name: value
        for name, value in (
            ("k", rng.choice((1, 2, 4))),
            ("normalize", rng.choice(("trie", "full"))),
            ("exact", rng.random() < 0.3),
            ("exclude_history", rng.random() < 0.3),
            ("unknown_titles", rng.random() < 0.7),
        )
        if rng.random() < 0.5
    }
    history = [rng.choice(_TITLES if rng.random() < 0.8 else TEXTS) for _ in range(rng.choice((1, 2, 3)))]
    asked |= {"history": history} if rng.random() < 0.7 else {"histories": [history, _TITLES[:2]]}
    kind = rng.randrange(10)
    if kind == 0:
        return json_text(weird(rng), rng)
    body = json_text(changed(asked, rng) if kind < 7 else asked, rng)
    if kind == 9:
        place = rng.randrange(len(body))
        return body[:place] + rng.choice((b"", rng.randbytes(3), b"\xff", body)) + body[place + 2 :]
    return body


def _ask(folder: Path, rng: random.Random) -> None:
    from bearray.serving.service import HttpError

    service = _service()
    headers = {
        "content-type": rng.choice(("application/json", "application/json; charset=x", "", *TEXTS)),
        "content-length": rng.choice(("12", "", "-1", "9" * 500, "٣", *TEXTS)),
    }
    path = rng.choice(("/recommend", "/recommend/", "/", "/health", "//", *TEXTS))
    replies = [service.route(rng.choice(("GET", "POST", "HEAD", *TEXTS)), path, headers)]
    if replies[0] is None:
        replies = []
    refused = ""
    queries = []
    for _ in range(rng.choice((1, 1, 2))):
        try:
            queries.append(service.parse(_body(rng)))
        except HttpError as error:
            assert 400 <= int(error.status) < 500 and 0 < len(str(error)) < 2_000
            refused = str(error)
    replies += service.answer(queries)
    for reply in replies:
        content = strict_json(reply.body)
        assert int(reply.status) == 200 or ("error" in content and 400 <= int(reply.status) < 500)
    for query, reply in zip(queries, replies[len(replies) - len(queries) :], strict=True):
        if int(reply.status) == 200:
            content = strict_json(reply.body)
            lists = [content] if query.single else content["lists"]
            assert len(lists) == len(query.histories)
            assert all(len(one["recommendations"]) <= query.k for one in lists)
    if refused and not queries:
        raise BearrayError(refused)


# --- projectors and vectors of soft tokens


@lru_cache(maxsize=1)
def _soft_parts() -> tuple[Any, Any]:
    """(backbone that knows the catalogue, settings of its SASRec)."""
    from bearray.config import RunConfig, SASRecConfig, override
    from bearray.task import load_task
    from tests.fuzz.trained_run import scratch_folder

    folder = scratch_folder()
    write_trained_run(folder, model__backbone="allmrec")
    config = override(
        RunConfig(),
        {
            "data.path": str(folder / DATA),
            "model.base": str(folder / BASE),
            "model.backbone": "allmrec",
            "model.max_prompt_tokens": 512,
        },
    )
    return load_task(config).backbone, SASRecConfig(hidden=8, layers=1, heads=1)


def _new_soft(seed: int) -> Any:
    """A model that reads soft tokens."""
    import torch

    from bearray.baselines.sasrec import SASRec
    from bearray.vectors import FrozenVectors, attach_new
    from tests.fuzz.models import micro_model

    backbone, settings = _soft_parts()
    items = torch.randn(backbone.num_titles, 128, generator=torch.Generator().manual_seed(seed))
    vectors = FrozenVectors(items, backbone.users, SASRec(backbone.num_titles, settings), settings)
    return attach_new(micro_model(), backbone, vectors)


def _soft(folder: Path) -> None:
    from bearray.vectors import save_soft

    save_soft(_new_soft(0), folder)


def _read_soft(folder: Path, rng: random.Random) -> None:
    import torch

    from bearray.vectors import attach_saved, load_soft
    from tests.fuzz.models import micro_model

    backbone, _ = _soft_parts()
    if rng.random() < 0.5:
        model = micro_model()
        soft = attach_saved(model, backbone, folder)
    else:
        soft = _new_soft(1)
        load_soft(soft, folder)
    with backbone.passing():
        ids = torch.tensor(backbone.encode_prompts([_TITLES[:3]]))
        states = soft(ids)
    assert states.shape == (*ids.shape, 8)
    largest = max(
        float(v.float().abs().max()) for v in (*soft.vectors.tensors().values(), *soft.parameters())
    )
    assert largest > 1e6 or states.isfinite().all(), "vectors that are no numbers"


# --- comparing runs


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


# --- how far a sweep is


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


RUN_READERS: tuple[Reader, ...] = (
    Reader(
        "run",
        write_trained_run,
        _open_or_export,
        damage=_damage_in(RUN, RUN, f"{RUN}/{CHECKPOINT}"),
        share=1.0,
    ),
    Reader("export", _export, _open_export, damage=_damage_in("out"), share=0.5),
    Reader("histories", _histories, _recommend, also_draws=True),
    Reader("requests", nothing, _ask, damage=undamaged, share=2.0),
    Reader("soft-tokens", _soft, _read_soft),
    Reader("compare", _compared, _compare, damage=_damage_in("runs"), also_draws=True),
    Reader("jobs-status", _progress, _status),
    Reader("leaderboard", _compared, _leaderboard, damage=_damage_in("runs"), also_draws=True),
)
