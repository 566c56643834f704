"""What is fuzzed of trained runs: opening and exporting them, asking them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

from bearray.errors import BearrayError
from tests.fuzz.printed import printed, strict_json
from tests.fuzz.reader import Reader, damage_in, nothing, undamaged
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


# --- a run folder, and an export of it


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


RUN_READERS: tuple[Reader, ...] = (
    Reader(
        "run",
        write_trained_run,
        _open_or_export,
        damage=damage_in(RUN, RUN, f"{RUN}/{CHECKPOINT}"),
        share=1.0,
    ),
    Reader("export", _export, _open_export, damage=damage_in("out"), share=0.5),
    Reader("histories", _histories, _recommend, also_draws=True),
    Reader("requests", nothing, _ask, damage=undamaged, share=2.0),
    Reader("soft-tokens", _soft, _read_soft),
)
