"""What is fuzzed: for each reader a good sample on disk, and a read that also checks what was promised."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bearray.errors import BearrayError, ResumeError
from tests.fuzz.reader import Read, Reader, nothing, undamaged
from tests.fuzz.run_readers import RUN_READERS
from tests.fuzz.storage_readers import STORAGE_READERS
from tests.fuzz.values import changed, weird

# --- raw data


def _interactions() -> list[tuple[str, str, int]]:
    return [
        (f"U{u}", f"I{(u * 7 + n * 3) % 9}", 1_300_000_000 + 86_400 * (u + 5 * n))
        for u in range(8)
        for n in range(7)
    ]


def _dumps(python_metadata: bool, suffix: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import gzip

        reviews = [
            {"reviewerID": u, "asin": i, "helpful": [0, 1], "reviewText": "Naïve, fine", "unixReviewTime": t}
            for u, i, t in _interactions()
        ]
        products = [
            {"asin": f"I{n}", "title": f'Kit\'s "{n}" &amp; more', "rank": [n], "fit": None} for n in range(9)
        ]
        write = repr if python_metadata else json.dumps
        for name, lines in (("reviews", map(json.dumps, reviews)), ("metadata", map(write, products))):
            data = "".join(f"{line}\n" for line in lines).encode()
            (folder / f"{name}{suffix}").write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)

    return make


def _tables(suffix: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import pandas as pd

        events = pd.DataFrame(_interactions(), columns=["user_id", "item_id", "timestamp"])
        items = pd.DataFrame(
            {"item_id": [f"I{n}" for n in range(9)], "title": [f"Title {n}, it's" for n in range(9)]}
        )
        for name, frame in (("interactions", events), ("items", items)):
            if suffix == ".parquet":
                frame.to_parquet(folder / f"{name}{suffix}", index=False)
            else:
                frame.to_csv(folder / f"{name}{suffix}", index=False, sep="\t" if "tsv" in suffix else ",")

    return make


def _csv_folder(folder: Path) -> None:
    import pandas as pd

    (folder / "id2name4Rec.json").write_text(
        json.dumps({str(i): f"Title {i} &amp; more" for i in range(1, 8)})
    )
    train = [(user, [1 + user % 3, 4, 5], 1_000 - 10 * user) for user in range(12)]
    parts = {
        "train": train,
        "train_5": train[:5],
        "test_5000": [(3, [1, 2, 3], 2_000), (1, [2, 3, 4], 1_500)],
    }
    for name, rows in parts.items():
        pd.DataFrame(rows, columns=["user_id", "item_ids", "timestamp"]).to_csv(
            folder / f"{name}.csv", index=False
        )


def _prepare(*inputs: tuple[str, str]) -> Read:
    def read(folder: Path, rng: random.Random) -> None:
        from bearray.data import open_dataset
        from bearray.data.prepare import prepare

        out = folder.parent / "out"
        options: dict[str, Any] = {name: folder / file for name, file in inputs}
        if "csv_folder" not in options:
            options["k_core"] = rng.choice((1, 1, 2))
        try:
            prepare(out, **options)
        except BaseException:
            left = sorted(p.name for p in folder.parent.iterdir())
            assert left == [folder.name], f"a failed prepare left {left}"
            raise
        assert len(open_dataset(out).train) > 0
        assert sorted(p.name for p in folder.parent.iterdir()) == sorted([folder.name, "out"])

    return read


def _dataset(folder: Path) -> None:
    from tests.data.conftest import write_layout

    write_layout(folder)


def _read_dataset(folder: Path, rng: random.Random) -> None:
    from bearray.data.summary import check_dataset

    json.dumps(check_dataset(str(folder), strict=rng.random() < 0.2), allow_nan=False)


# --- fetched data

_FETCHED = ("id2name4Rec.json", "train.csv", "test_5000.csv")


def _mirror(folder: Path) -> None:
    _csv_folder(folder)
    (folder / "train_5.csv").unlink()
    from tests.data.test_fetch import blob_id

    tree: list[dict[str, Any]] = [{"path": "data", "type": "tree", "sha": "0" * 40}]
    for name in _FETCHED:
        data = (folder / name).read_bytes()
        tree.append({"path": f"data/Toy/{name}", "type": "blob", "size": len(data), "sha": blob_id(data)})
    (folder / "listing.json").write_text(json.dumps({"sha": "x", "tree": tree, "truncated": False}))


def _fetch(folder: Path, rng: random.Random) -> None:
    """The mirror is answered from the folder without a network."""
    from unittest import mock

    import httpx

    from bearray.data import fetch as module
    from bearray.data import open_dataset

    def answer(request: httpx.Request) -> httpx.Response:
        file = folder / request.url.path.rsplit("/", 1)[-1]
        if rng.random() < 0.05:
            return httpx.Response(rng.choice((301, 404, 416, 429, 500, 204)))
        return httpx.Response(200, content=file.read_bytes()) if file.is_file() else httpx.Response(404)

    def client(**options: Any) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(answer), **options)

    home = folder.parent / "home"
    home.mkdir()
    before = sorted(p.name for p in folder.parent.iterdir())
    proxy = mock.Mock(
        wraps=httpx, Client=client, HTTPError=httpx.HTTPError, HTTPStatusError=httpx.HTTPStatusError
    )
    with mock.patch.object(module, "httpx", proxy):
        try:
            module.fetch("toy", home / "out", base_url="http://mirror", attempts=2, wait=0.0001)
        except BaseException:
            assert not (home / "out").exists()
            raise
        finally:
            assert sorted(p.name for p in folder.parent.iterdir()) == before, (
                "a file outside the target folder"
            )
    assert len(open_dataset(home / "out").train) > 0


# --- settings


def _config(folder: Path, rng: random.Random) -> None:
    from bearray.config import RunConfig, config_hash, from_dict, override, to_dict
    from bearray.efficiency.config import EfficiencyConfig
    from bearray.tuning.config import SweepConfig

    cls: Any = rng.choice((RunConfig, RunConfig, SweepConfig, EfficiencyConfig))
    if rng.random() < 0.7:
        found = from_dict(cls, changed(to_dict(cls()), rng))
    else:
        names = [f"{group}.{name}" for group, own in to_dict(RunConfig()).items() for name in own]
        found = override(
            RunConfig(), {rng.choice((*names, "data", "x.y", "", ".", "data.")): weird(rng) for _ in range(2)}
        )
    again = from_dict(type(found), json.loads(json.dumps(to_dict(found), allow_nan=False)))
    assert config_hash(again) == config_hash(found)


_OPTIONS = (
    "--data-dir", "--storage", "--base-model", "--methods", "--seeds", "--smoke", "--scale", "--search.lam",
    "--search.trials", "--method-settings", "--run.train.lr", "--train.lr", "--train.epochs", "--",
    "--objective.lam", "--data.domain-words", "--loggers", "--start-from", "--evaluation.actors", "-",
    "--evaluation.exact-test", "--no-report", "--model.base",
)  # fmt: skip
_ARGUMENTS = (
    "", "1", "-1", "0", "nan", "inf", "1e400", "bear", "sft", "all", "paper", "cpu", "None", "x" * 3_000,
    "a b", "../..", "é", "\x00", "\ud800", "sft:train.lr=1", "sft:", ":", "=", "dpo,sdpo:train.lr=x",
    "sft:data.path=../..", "9" * 5_000, "{}", "[1]",
)  # fmt: skip


def _command_line(folder: Path, rng: random.Random) -> None:
    import io

    from bearray.tuning.config import SweepConfig
    from bearray.tuning.main import parse
    from bearray.tuning.settings import method_settings

    arguments: list[str] = []
    for _ in range(rng.randrange(6)):
        arguments.append(rng.choice(_OPTIONS))
        arguments += [rng.choice(_ARGUMENTS) for _ in range(rng.choice((0, 1, 1, 1, 2, 3)))]
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            sweep = parse(SweepConfig, arguments)
        except SystemExit as stop:
            assert stop.code == 2, f"exit code {stop.code}"
            raise BearrayError("the command line was refused") from stop
    method_settings(sweep.method_settings, sweep.methods, sweep.run)


# --- storage


def _storage(folder: Path) -> None:
    """Two tested runs, two trials, an efficiency benchmark's neighbour and a pruning analysis."""
    from tests.report.storage import write_run
    from tests.report.test_pruning import summary, write_pruning

    runs = folder / "runs"
    sft = write_run(runs / "sft", method="SFT", n=14, users_count=7, epochs=1, full=False, exact=True)
    write_run(
        runs / "bear-1", method="BEAR", n=14, users_count=7, epochs=1, role="trial", chosen=True, full=False
    )
    write_run(
        runs / "bear-2", method="BEAR", epochs=1, role="trial", hit=None, changes={"objective.lam": 2.0}
    )
    write_run(
        runs / "msl", method="MSL", epochs=1, status="failed", error="out of memory", hit=None, valid=None
    )
    for metrics in runs.glob("*/metrics.jsonl"):
        metrics.write_text("".join(metrics.read_text(encoding="utf-8").splitlines(keepends=True)[-4:]))
    write_pruning(sft, summary(4, of=10))
    sweep = {"sweep": {"data_dir": "d", "storage": "s"}, "data_stats": {"items": 9}, "departures": ["small"]}
    (folder / "sweep.json").write_text(json.dumps(sweep))


def _report(drawn: bool) -> Read:
    def read(folder: Path, rng: random.Random) -> None:
        from unittest import mock

        from bearray.report import figures, html, write, write_report

        out = folder.parent / "out"
        with (
            mock.patch.object(write, "save", figures.save if drawn else lambda figure, folder: None),
            mock.patch.object(html, "inline", figures.inline if drawn else lambda figure: []),
        ):
            try:
                write_report(folder, out)
            except BaseException:
                assert not (out / "index.html").exists(), "a page is left of a report that failed"
                raise
        assert (out / "index.html").read_text().rstrip().endswith("</html>")

    return read


def _resume(folder: Path, rng: random.Random) -> None:
    """What a rerun reads of an older sweep and its runs."""
    from bearray.config import RunConfig
    from bearray.runs import Storage
    from bearray.trained import trained_runs
    from bearray.tuning.trial import RunPlan, begin, finished

    storage = Storage(str(folder))
    plan = RunPlan(
        config=RunConfig(),
        role="method",
        method="SFT",
        dataset="demo",
        base_model="x",
        base_model_kind="hub",
        data_hash="d",
    )
    for name in storage.names("runs"):
        run = storage.child("runs", name)
        step = rng.randrange(4)
        if step == 0:
            with contextlib.suppress(ResumeError):  # of course it was begun with other settings
                begin(plan, run)
        elif step == 1:
            finished(run)
        elif step == 2:
            run.read_lines("metrics.jsonl")
        else:
            trained_runs([run.root, storage.root])


def _trained(folder: Path) -> None:
    """As `_storage`, with checkpoints that results point to."""
    _storage(folder)
    for result in (folder / "runs").glob("*/result.json"):
        content = json.loads(result.read_text())
        (result.parent / "checkpoints" / "checkpoint_1").mkdir(parents=True)
        result.write_text(json.dumps(content | {"checkpoint": "checkpoints/checkpoint_1"}))


def _predictions(folder: Path) -> None:
    import numpy as np
    import pyarrow as pa

    from bearray.evaluation.predictions import SCHEMA, predictions_in
    from bearray.evaluation.shards import write_shard
    from bearray.runs import Storage

    storage = Storage(str(folder))
    table = predictions_in(storage, 10, 4)
    table.begin({"rows": 10, "shard_size": 4, "decoding": {"method": "beam"}})
    for number in range(table.shards):
        rows = list(table.rows_of(number))
        columns = {
            "row": rows, "user_id": rows, "target": rows, "items": [[1, 2]] * len(rows),
            "scores": [[-1.0, -2.0]] * len(rows), "rank": np.zeros(len(rows)), "warm": [True] * len(rows),
        }  # fmt: skip
        write_shard(storage, number, pa.table(columns, schema=SCHEMA), seconds=1.0)


def _read_predictions(folder: Path, rng: random.Random) -> None:
    from bearray.evaluation.predictions import predictions_in, read_predictions
    from bearray.runs import Storage

    storage = Storage(str(folder))
    if rng.random() < 0.4:
        table = predictions_in(storage, 10, 4)
        table.begin({"rows": 10, "shard_size": 4, "decoding": {"method": "beam"}})
        if not table.missing():
            assert table.read()["row"].tolist() == list(range(10))
        return
    manifest = storage.read_json("manifest.json") if storage.exists("manifest.json") else None
    frame = read_predictions(storage)
    assert frame["row"].tolist() == list(range(manifest["rows"])), "fewer predictions than the manifest says"


# --- arrays, adapters, checkpoints

_SEQUENCES = [[5, 6, 7], [5, 6, 8], [5, 9], [10, 11], [10, 11, 12, 13]]


def _trie(folder: Path) -> None:
    from bearray.trie import TokenTrie

    TokenTrie.from_sequences(_SEQUENCES).save(folder / "trie.safetensors")


def _read_trie(folder: Path, rng: random.Random) -> None:
    import torch

    from bearray.trie import TokenTrie

    trie = TokenTrie.load(folder / "trie.safetensors")
    nodes = torch.arange(len(trie))
    trie.candidates(nodes, 2)
    found = trie.sequences_at(nodes)
    assert all(trie.find(tokens) == node for node, tokens in enumerate(found)), "a damaged trie was opened"
    trie.title_order  # noqa: B018 - it walks the whole tree


class _Answers:
    """What a fast tokenizer is to the catalogue's cache."""

    class backend_tokenizer:
        @staticmethod
        def to_str() -> str:
            return "tokenizer"

    def __call__(self, texts: list[str]) -> list[list[int]]:
        return [[3 + ord(c) % 11 for c in text] for text in texts]


_TEXTS = [f"{n}" for n in range(4_000)]


def _catalogue(folder: Path) -> None:
    from bearray.catalog_cache import load_or_encode

    load_or_encode(_TEXTS, _Answers(), tokenizer=_Answers(), folder=folder)  # type: ignore[arg-type]
    for lock in folder.glob("*.lock"):
        lock.unlink()


def _read_catalogue(folder: Path, rng: random.Random) -> None:
    """Damage costs the tokenisation and nothing else."""
    from bearray.catalog_cache import load_or_encode

    found = load_or_encode(_TEXTS, _Answers(), tokenizer=_Answers(), folder=folder)  # type: ignore[arg-type]
    for n in (0, 17, 3_999):
        title = int(found.title_of_text[n])
        tokens = list(found.tokens[title])
        assert tokens == _Answers()([_TEXTS[n]])[0]
        assert int(found.trie.terminal[found.trie.find(tokens)]) >= 0


def _model() -> Any:
    from tests.fuzz.models import micro_model

    return micro_model()


def _adapter(folder: Path) -> None:
    from bearray.backbones.lora import add_lora, save_adapter
    from bearray.config import ModelConfig

    save_adapter(add_lora(_model(), ModelConfig(lora_r=2)), folder)


def _read_adapter(folder: Path, rng: random.Random) -> None:
    from bearray.backbones.lora import check_adapter, load_adapter, start_from
    from bearray.config import ModelConfig

    config = ModelConfig(lora_r=2)
    step = rng.randrange(3)
    if step == 0:
        check_adapter(folder, config)
    elif step == 1:
        load_adapter(_model(), folder)
    else:
        from bearray.backbones.lora import add_lora

        start_from(add_lora(_model(), config), folder, config)


def _checkpoint(folder: Path) -> None:
    from tests.fuzz.models import save_micro_checkpoint

    save_micro_checkpoint(folder)


def _read_checkpoint(folder: Path, rng: random.Random) -> None:
    from tests.fuzz.models import restore_micro_checkpoint

    restore_micro_checkpoint(folder)


def _base_model(folder: Path) -> None:
    from tests.fuzz.models import save_micro_base

    save_micro_base(folder)


def _read_base_model(folder: Path, rng: random.Random) -> None:
    from bearray.backbones.load import load_model, load_tokenizer

    tokenizer = load_tokenizer(str(folder))
    load_model(str(folder), device="cpu", tokenizer=tokenizer)


READERS: tuple[Reader, ...] = (
    Reader(
        "dumps-2014",
        _dumps(True, ".json.gz"),
        _prepare(("reviews", "reviews.json.gz"), ("metadata", "metadata.json.gz")),
    ),
    Reader(
        "dumps-2018",
        _dumps(False, ".json"),
        _prepare(("reviews", "reviews.json"), ("metadata", "metadata.json")),
    ),
    Reader(
        "tables-csv", _tables(".csv"), _prepare(("interactions", "interactions.csv"), ("items", "items.csv"))
    ),
    Reader(
        "tables-tsv",
        _tables(".tsv.gz"),
        _prepare(("interactions", "interactions.tsv.gz"), ("items", "items.tsv.gz")),
        share=0.5,
    ),
    Reader(
        "tables-parquet",
        _tables(".parquet"),
        _prepare(("interactions", "interactions.parquet"), ("items", "items.parquet")),
    ),
    Reader("csv-folder", _csv_folder, _prepare(("csv_folder", ""))),
    Reader("dataset", _dataset, _read_dataset, share=1.5),
    Reader("fetch", _mirror, _fetch, share=0.5),
    Reader("config", nothing, _config, damage=undamaged, share=2.0),
    Reader("command-line", nothing, _command_line, damage=undamaged, share=0.4),
    Reader("report", _storage, _report(drawn=False), share=2.0),
    Reader("report-drawn", _storage, _report(drawn=True), share=0.05),
    Reader("resume", _trained, _resume, share=1.5),
    Reader("predictions", _predictions, _read_predictions),
    Reader("trie", _trie, _read_trie, share=1.5),
    Reader("catalogue-cache", _catalogue, _read_catalogue, share=0.5),
    Reader("adapter", _adapter, _read_adapter, share=0.5),
    Reader("checkpoint", _checkpoint, _read_checkpoint, share=0.3),
    Reader("base-model", _base_model, _read_base_model, share=0.3),
    *RUN_READERS,
    *STORAGE_READERS,
)
"""The empty name of a file in `_prepare` is the folder itself."""


def fresh(sample: Path, scratch: Path) -> Path:
    """A copy of a sample in an empty scratch folder."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    return Path(shutil.copytree(sample, scratch / "input"))


def quiet() -> None:
    """No progress bars, no warnings of libraries about files that are meant to be damaged."""
    import logging
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
