"""Synthetic run folders, written exactly as DESIGN 7 has them, with numbers that a test can work out
itself."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bearray.config import RunConfig, override, to_dict

BEAMS = 10


def ranks(n: int, hit: float, seed: int) -> np.ndarray:
    """`n` ranks, a share `hit` of them in the top 10, better ones likelier."""
    rng = np.random.default_rng(seed)
    found = np.minimum(rng.exponential(3.0, n).astype(int), BEAMS - 1).astype(float)
    return np.where(rng.random(n) < hit, found, math.inf)


def evaluate(rank: np.ndarray, users: np.ndarray) -> dict[str, Any]:
    """The parts of metrics.evaluate's result that a report reads."""

    def entry(mean: float) -> dict[str, float]:
        return {"mean": mean, "low": mean * 0.9, "high": mean * 1.1}

    ndcg = {k: float(np.mean([1 / math.log2(r + 2) if r < k else 0.0 for r in rank])) for k in (1, 5, 10)}
    values: dict[str, Any] = {f"hr@{k}": entry(float(np.mean(rank < k))) for k in (1, 5, 10)}
    values |= {f"ndcg@{k}": entry(v) for k, v in ndcg.items()}
    return {"all": {**values, "n": len(rank), "users": len(set(users.tolist()))}}


def write_predictions(
    folder: Path,
    rank: np.ndarray,
    users: np.ndarray,
    *,
    shard: int = 64,
    warm_below: int = 60,
    rows: np.ndarray | None = None,
    lists: np.ndarray | None = None,
) -> None:
    """`lists` [n, BEAMS] are the recommended items; None: none are recorded, only ranks."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.arange(len(rank)) if rows is None else rows
    targets = (rows * 37) % 100
    lists = np.full((len(rank), BEAMS), -1) if lists is None else lists
    for i in range(0, len(rank), shard):
        part = slice(i, i + shard)
        size = len(rank[part])
        table = pa.table(
            {
                "user_id": pa.array(users[part], pa.int32()),
                "row": pa.array(rows[part], pa.int32()),
                "target": pa.array(targets[part], pa.int32()),
                "items": pa.array(lists[part].tolist(), pa.list_(pa.int32())),
                "scores": pa.array([[0.0] * BEAMS] * size, pa.list_(pa.float32())),
                "rank": pa.array(rank[part], pa.float64()),
                "warm": pa.array(targets[part] < warm_below, pa.bool_()),
            }
        )
        pq.write_table(table, folder / f"shard-{i // shard:05d}.parquet")


def write_run(
    folder: Path,
    *,
    method: str,
    hit: float | None = 0.2,
    seed: int = 0,
    n: int = 200,
    users_count: int = 80,
    dataset: str = "demo",
    base_model: str = "local:tiny",
    kind: str = "local stand-in",
    role: str = "method",
    changes: dict[str, Any] | None = None,
    status: str | None = "finished",
    error: str | None = None,
    chosen: bool = False,
    valid: float | None = 0.1,
    epochs: int = 3,
    data_hash: str = "d" * 16,
    full: bool = True,
    exact: bool = False,
    proven: float = 1.0,
    versions: dict[str, str] | None = None,
) -> Path:
    """Write one run folder; `hit` None: no test predictions; `status` None: no result.json (unfinished)."""
    folder.mkdir(parents=True)
    known = ("sft", "msl", "bear", "dpo")
    objective = method.split()[0].lower() if method.split()[0].lower() in known else "bear"
    run = override(
        RunConfig(),
        {
            "objective.name": objective,
            "data.path": f"prepared/{dataset}",
            "model.base": base_model,
            **(changes or {}),
        },
    )
    config = {
        "run": to_dict(run),
        "role": role,
        "method": method,
        "dataset": dataset,
        "base_model": base_model,
        "base_model_kind": kind,
        "versions": versions or {"bearray": "0.1.0", "torch": "2.13.0"},
        "git": "0123456789abcdef",
        "data_hash": data_hash,
        "created": "2026-01-02T03:04:05",
    }
    (folder / "config.json").write_text(json.dumps(config))
    lines = []
    rng = np.random.default_rng(seed)
    for step in range(1, epochs * 20 + 1):
        level = 3 * math.exp(-step / 25) + 1 + 0.05 * rng.standard_normal()
        record = {
            "kind": "step",
            "step": step,
            "epoch": step / 20,
            "loss": level * (1.3 if objective == "bear" else 1),
            "nll": level,
            "violation": 0.5 * math.exp(-step / 30) + 0.02 * seed,
            "margin": level - 2.2,
            "regularizer": -0.3,
            "lr": 1e-4,
            "tokens_per_s": 1000.0 + step,
        }
        lines.append(record)
        if step % 20 == 0:
            epoch = step // 20
            share = (valid or 0.0) * (1 - 0.3 / epoch + 0.1 * (epochs == epoch) * 3 / epochs)
            lines.append(
                {
                    "kind": "epoch",
                    "epoch": epoch,
                    "valid_ndcg@10": share,
                    "valid_hr@10": 2 * share,
                    "valid_n": 100,
                    "seconds": 1.5,
                }
            )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    if status is None:
        return folder
    result: dict[str, Any] = {
        "status": status,
        "best_epoch": epochs,
        "chosen": chosen,
        "error": error,
        "seconds": {"train": 100.0 + 10 * seed, "valid": 20.0, "test": 30.0 if hit is not None else None},
    }
    if valid is not None:
        result["valid"] = {"ndcg@10": valid, "hr@10": 2 * valid}
    if hit is not None and status == "finished":
        users = np.arange(n) % users_count
        result["test"] = {}
        names = ["trie", *(["full"] if full else []), *(["exact"] if exact else [])]
        for offset, name in enumerate(names):
            rank = ranks(n, hit * (1 - 0.2 * offset), 100 * seed + offset)
            own = run.decoding.normalize == name
            write_predictions(folder / ("predictions" if own else f"predictions_{name}"), rank, users)
            result["test"][name] = evaluate(rank, users)
        result["seconds"]["decoding"] = {name: n / (10 + i) for i, name in enumerate(names)}
        if exact:
            result["test"]["exact"]["proven"] = proven
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def also_decoded(folder: Path, name: str) -> Path:
    """Let a run have the results of its own decoding under another one, too."""
    shutil.copytree(folder / "predictions", folder / f"predictions_{name}")
    result = json.loads((folder / "result.json").read_text())
    result["test"][name] = result["test"]["trie"]
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def as_baseline(folder: Path, base_model: str = "no language model") -> Path:
    """Make a run one that knows items by number."""
    config = json.loads((folder / "config.json").read_text())
    config["run"]["baseline"] = {"train": {"seed": 1}}
    (folder / "config.json").write_text(json.dumps(config | {"base_model": base_model}))
    return folder


def write_sweep(storage: Path) -> None:
    """SFT, MSL and a search for BEAR with a chosen, a failed and an unfinished trial, and a sweep.json."""
    runs = storage / "runs"
    write_run(runs / "sft", method="SFT", hit=0.15, seed=1, valid=0.06)
    write_run(runs / "msl", method="MSL", hit=0.25, seed=2, valid=0.08)
    rng = np.random.default_rng(5)
    for i in range(10):
        lam, xi = float(rng.uniform(0.1, 5)), float(rng.uniform(0.25, 3))
        best = i == 7
        value = 0.09 - 0.004 * abs(lam - 1.5) - 0.006 * abs(xi - 1.5) + (0.02 if best else 0)
        write_run(
            runs / f"bear-{i}",
            method="BEAR",
            role="trial",
            seed=3 + i,
            valid=value,
            chosen=best,
            hit=0.45 if best else None,
            changes={"objective.lam": lam, "objective.xi": xi},
        )
    write_run(
        runs / "bear-failed",
        method="BEAR",
        role="trial",
        status="failed",
        error="worker 0 ran out of memory",
        hit=None,
        valid=None,
        epochs=1,
        seed=20,
        changes={"objective.lam": 4.5, "objective.xi": 0.3},
    )
    write_run(
        runs / "bear-stopped",
        method="BEAR",
        role="trial",
        status=None,
        hit=None,
        valid=0.05,
        epochs=2,
        seed=21,
        changes={"objective.lam": 2.5, "objective.xi": 0.6},
    )
    sweep = {
        "sweep": {
            "name": "demo",
            "trials": 12,
            "axes": {"objective.lam": [0.1, 5.0], "objective.xi": [0.25, 3.0]},
        },
        "data_stats": {"users": 4000, "items": 600, "windows": {"train": 9000, "valid": 1100, "test": 1100}},
        "departures": ["model.base: llama-3.2-3b -> local:tiny", "train.epochs: 10 -> 3"],
    }
    (storage / "sweep.json").write_text(json.dumps(sweep))


def write_run_on(
    folder: Path, data_dir: Path, *, method: str, hit: float = 0.3, seed: int = 0, **more: Any
) -> Path:
    """A run folder whose test cases, targets and lists are of a real data set; `more` as in `write_run`,
    where `changes` may hold data.test_windows. Lists are random titles with the target at its rank."""
    from bearray.config import DataConfig
    from bearray.data import clean_title, open_dataset
    from bearray.task import sampled_windows

    dataset = open_dataset(data_dir)
    changes = {"data.path": str(data_dir), **more.pop("changes", {})}
    limit = {
        k.partition(".")[2]: v for k, v in changes.items() if k in ("data.test_windows", "data.sample_seed")
    }
    windows = sampled_windows(dataset, DataConfig(**limit), "test")
    users, n = windows["user_id"].to_numpy(), len(windows)
    given = {"full": False, "data_hash": dataset.content_hash, "dataset": data_dir.name, **more}
    write_run(folder, method=method, hit=hit, seed=seed, n=n, changes=changes, **given)
    stands: dict[str, int] = {}  # title -> the lowest item that has it
    ordered = dataset.items.sort_values("item_id")
    of = {
        int(item): stands.setdefault(clean_title(title), int(item))
        for item, title in zip(ordered["item_id"], ordered["title"], strict=True)
    }
    warm = {int(item) for items in dataset.train["item_ids"] for item in items}
    rng = np.random.default_rng(seed)
    rank = ranks(n, hit, 100 * seed)
    targets = [int(items[-1]) for items in windows["item_ids"]]
    lists = []
    for place, target in zip(rank, targets, strict=True):
        others = [int(i) for i in rng.permutation(list(stands.values())) if i != of[target]][:BEAMS]
        if place < BEAMS:
            others.insert(int(place), of[target])
        lists.append(others[:BEAMS])
    table = pa.table(
        {
            "user_id": pa.array(users, pa.int32()),
            "row": pa.array(np.arange(n), pa.int32()),
            "target": pa.array(targets, pa.int32()),
            "items": pa.array(lists, pa.list_(pa.int32())),
            "scores": pa.array([[0.0] * BEAMS] * n, pa.list_(pa.float32())),
            "rank": pa.array(rank, pa.float64()),
            "warm": pa.array([t in warm for t in targets], pa.bool_()),
        }
    )
    for shard in (folder / "predictions").glob("*.parquet"):
        shard.unlink()
    pq.write_table(table, folder / "predictions" / "shard-00000.parquet")
    result = json.loads((folder / "result.json").read_text())
    result["test"]["trie"] = evaluate(rank, users)
    (folder / "result.json").write_text(json.dumps(result))
    return folder
