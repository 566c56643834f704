"""A sweep, and the paper, in a folder, as far as they have come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bearray.config import RunConfig, override, to_dict
from bearray.paper.config import PaperConfig
from bearray.runs import Storage
from bearray.tuning.config import SearchConfig, SweepConfig

SWEEP = SweepConfig(
    data_dir="data/demo",
    storage="results/demo",
    base_model=("local:tiny",),
    methods=("sft", "bear"),
    seeds=(1, 2),
    scale="smoke",
    search=SearchConfig(trials=2),
)


def config(method: str, role: str, seed: int = 1) -> dict[str, Any]:
    run = override(RunConfig(), {"train.seed": seed, "train.epochs": 2, "objective.name": method})
    return {
        "run": to_dict(run), "role": role, "method": method.upper(), "dataset": "demo",
        "base_model": "local:tiny",
    }  # fmt: skip


def epoch(number: int, score: float) -> dict[str, Any]:
    return {"kind": "epoch", "epoch": number, "seconds": 1.0, "valid_ndcg@10": score}


def make(folder: Path) -> Path:
    """SFT is trained and half tested with seed 1, and fails with seed 2; one trial of BEAR goes on."""
    storage = Storage(str(folder))
    storage.write_json("sweep.json", {"sweep": to_dict(SWEEP), "dataset": "demo", "data_hash": "0123"})
    one = storage.child("runs", "sft-1")
    one.write_json("config.json", config("sft", "method"))
    one.write_lines("metrics.jsonl", [epoch(1, 0.2), epoch(2, 0.1)])
    one.write_json("result.json", {"status": "finished", "error": None, "chosen": False})
    one.write_json("predictions/manifest.json", {"rows": 50, "shard_size": 20, "decoding": {}})
    one.write_bytes("predictions/part-00000.parquet", b"a shard")
    one.write_bytes("checkpoints/2/adapter/adapter_model.safetensors", b"many bytes")
    two = storage.child("runs", "sft-2")
    two.write_json("config.json", config("sft", "method", 2))
    failed = {"status": "failed", "error": "ValueError: the loss is NaN", "chosen": False}
    two.write_json("result.json", failed)
    three = storage.child("runs", "bear-1")
    three.write_json("config.json", config("bear", "trial"))
    three.write_lines("metrics.jsonl", [epoch(1, 0.25), {"kind": "step", "epoch": 1.5, "loss": 2.0}])
    storage.write_bytes("runs/.nfs0001", b"what a file system leaves behind")
    return folder


PART = "demo/bigrec-local-tiny"
PAPER = PaperConfig(
    datasets=("demo",), sampled=(), base_model="local:tiny", smaller_model=None, larger_model=None,
    backbones=("llara",), methods=("sft", "bear"), baselines=("sasrec",), seeds=(1, 2),
)  # fmt: skip


def make_paper(folder: Path) -> Path:
    """One part is as `make` has it, and has begun to vary lambda; the other has not begun. SASRec is half
    done."""
    storage = Storage(str(folder))
    data = {"demo": {"stats": {}, "content_hash": "0123"}, "gone": {"stats": {}, "content_hash": "4567"}}
    storage.write_json("paper.json", {"config": to_dict(PAPER), "data": data})
    storage.write_bytes("paper/index.html", b"<html></html>")
    storage.write_bytes("demo/notes.txt", b"of the user")
    make(folder / PART)
    varied = replace(SWEEP, methods=("lam0=bear",), search=SearchConfig(methods=()), test=False, report=False)
    storage.write_json(f"{PART}/sensitivity/sweep.json", {"sweep": to_dict(varied), "dataset": "demo"})
    for seed, result in ((1, {"status": "finished"}), (2, None)):
        run = storage.child("demo", "baselines", f"sasrec-{seed}-abcdef")
        run.write_json("config.json", config("sasrec", "method", seed))
        if result is not None:
            run.write_json("result.json", result)
    return folder
