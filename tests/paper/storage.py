"""A storage of the paper with some of its runs, as sweeps write them; others are missing on purpose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bearray.paper.config import PaperConfig
from bearray.paper.parts import Part
from tests.efficiency.planted import content
from tests.report.storage import evaluate, ranks, write_predictions, write_run
from tests.report.test_pruning import summary, write_pruning

BASE = "local:tiny"
TOY, DEMO, SAMPLE = (
    Part("toy", "bigrec", BASE),
    Part("demo", "bigrec", BASE),
    Part("toy", "bigrec", BASE, sampled=True),
)
LLARA = Part("toy", "llara", BASE)
N, USERS = 200, 80


def paper_config(root: Path, **changes: Any) -> PaperConfig:
    """Toy and the demo set, two seeds, one backbone more, one size."""
    settings: dict[str, Any] = {
        "datasets": ("toy", "demo"),
        "sampled": ("toy",),
        "sample_users": 50,
        "base_model": BASE,
        "smaller_model": BASE,
        "larger_model": None,
        "backbones": ("llara",),
        "methods": ("sft", "d3", "igd", "msl", "sdpo", "bear", "grpo"),
        "baselines": ("sasrec", "llm-cf"),
        "seeds": (42, 43),
        "storage": str(root),
    }
    return PaperConfig(**{**settings, **changes})


def write_method(root: Path, part: Part, name: str, hit: float | None, seed: int = 42, **more: Any) -> Path:
    """A run of an objective; its method is called as a sweep calls it."""
    changes = {"objective.name": name, "train.seed": seed, **more.pop("changes", {})}
    return write_run(
        root / part.folder / "runs" / f"{name}-{seed}{more.pop('suffix', '')}",
        method=name.upper(),
        hit=hit,
        seed=1000 * (seed - 42) + sum(map(ord, name)),
        n=N,
        users_count=USERS,
        dataset=part.data_name,
        base_model=part.base,
        changes=changes,
        epochs=1,
        **{"chosen": True, **more},
    )


def also_penalised(run: Path, hit: float) -> None:
    """Test results with length penalty 1, too."""
    rank, users = ranks(N, hit, 77), np.arange(N) % USERS
    write_predictions(run / "predictions_trie_lp1", rank, users)
    result = json.loads((run / "result.json").read_text())
    result["test"]["trie_lp1"] = evaluate(rank, users)
    (run / "result.json").write_text(json.dumps(result))


def write_baseline(root: Path, data_name: str, name: str, hit: float, seed: int = 42) -> Path:
    """A run of a recommender that knows items by number."""
    run = write_run(
        root / data_name / "baselines" / f"{name}-{seed}", method=name, hit=hit, seed=seed, n=N,
        users_count=USERS, dataset=data_name, base_model="no language model", full=False, epochs=1,
    )  # fmt: skip
    config = json.loads((run / "config.json").read_text())
    config["run"] = {
        "data": config["run"]["data"],
        "baseline": {"name": name, "train": {"epochs": 20, "seed": seed}},
        "decoding": {"exclude_history": False},
    }
    (run / "config.json").write_text(json.dumps(config))
    return run


def write_record(root: Path) -> None:
    """Toy with the paper's numbers, the demo set with others."""
    toy = {
        "users": 19124, "items": 11758, "interactions": 165247, "density": 0.000735, "distinct_titles": 11695,
        "windows": {"train": 38352, "valid": 4794, "test": 4794},
    }  # fmt: skip
    demo = {**toy, "users": 300, "items": 200, "interactions": 3000, "density": 0.05}
    data = {name: {"stats": stats} for name, stats in (("toy", toy), ("demo", demo), ("toy-s", demo))}
    (root / "paper.json").write_text(json.dumps({"config": {}, "data": data}))


def plant_costs(root: Path, part: Part, third: str) -> None:
    """Steps of SFT, of BEAR at 1.5 times its cost, of `third` at twice."""
    text = json.dumps(content(dataset=part.data_name)).replace('"sdpo"', f'"{third}"')
    folder = root / part.folder / "efficiency"
    folder.mkdir(parents=True)
    (folder / "efficiency.json").write_text(text)


def write_paper(root: Path) -> PaperConfig:
    """Toy: nearly everything, with a failed method, one in training and one not tested. Demo: SFT alone."""
    root.mkdir(parents=True, exist_ok=True)
    write_record(root)
    for seed in (42, 43):
        sft = write_method(root, TOY, "sft", 0.10, seed)
        msl = write_method(root, TOY, "msl", 0.25, seed)
        bear = write_method(root, TOY, "bear", 0.60, seed, valid=0.2)
        write_run(
            root / TOY.folder / "decoded" / f"d3-{seed}", method="D3", hit=0.12, seed=seed + 7, n=N,
            users_count=USERS, dataset="toy", full=False, epochs=1,
            changes={
                "objective.name": "sft", "train.seed": seed, "decoding.method": "d3",
                "decoding.d3_alpha": 0.7, "decoding.d3_scores": "sasrec", "decoding.d3_sasrec_epochs": 20,
            },
        )  # fmt: skip
        if seed == 42:
            for run, pruned in ((sft, 38), (msl, 20), (bear, 4)):
                write_pruning(run, summary(pruned))
            also_penalised(sft, 0.1)
            also_penalised(bear, 0.5)
    for trial in range(3):
        write_method(
            root, TOY, "bear", None, role="trial", chosen=False, suffix=f"-t{trial}", valid=0.1 + trial / 100,
            changes={"objective.lam": 0.5 + trial},
        )  # fmt: skip
    write_method(root, TOY, "igd", None, status="failed", error="worker 0 ran out of memory", chosen=False)
    write_method(root, TOY, "grpo", None, status=None)
    write_method(root, TOY, "sdpo", None)
    write_baseline(root, "toy", "sasrec", 0.2)
    plant_costs(root, TOY, "sdpo")
    for name, hit in (("sft", 0.2), ("bear", 0.3), ("beam_simulation", 0.3)):
        write_method(root, SAMPLE, name, hit)
    plant_costs(root, SAMPLE, "beam_simulation")
    for axis, value, valid in (("lam", 1.0, 0.15), ("lam", 4.0, 0.12), ("xi", 0.5, 0.18), ("xi", 2.0, 0.21)):
        write_run(
            root / TOY.folder / "sensitivity" / "runs" / f"{axis}-{value}", method="BEAR", hit=None,
            valid=valid, dataset="toy", changes={f"objective.{axis}": value}, epochs=1,
        )  # fmt: skip
    for name, hit in (("sft", 0.1), ("msl", 0.2), ("bear", 0.2)):
        write_method(root, LLARA, name, hit, changes={"model.backbone": "llara"})
    write_method(root, DEMO, "sft", 0.1)
    return paper_config(root)
