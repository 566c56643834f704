"""An efficiency.json whose numbers a test can work out itself."""

from __future__ import annotations

from typing import Any

from bearray.config import DecodingConfig, ObjectiveConfig, to_dict
from bearray.efficiency.config import EfficiencyConfig
from bearray.efficiency.results import SCHEMA

SFT = (1.0, 1.2, 1.1, 1.3, 0.9, 1.0)
"""Seconds of a step in six rounds: a machine that drifts."""
RATIOS = {"sft": 1.0, "bear": 1.5, "sdpo": 2.0}
MACHINE = {
    "cpu": "A Processor",
    "cores": 2,
    "threads": 1,
    "gpu": None,
    "cuda": None,
    "versions": {"torch": "2.13.0"},
}


def turn(seconds: list[float]) -> dict[str, Any]:
    return {"seconds": seconds, "cpu_seconds": [2 * s for s in seconds], "joules": None}


def passes(forward: int, backward: int, tokens: int, steps: int) -> dict[str, Any]:
    return {
        "weights": [1 / steps] * steps,
        "forward": [forward] * steps,
        "backward": [backward] * steps,
        "tokens": [tokens] * steps,
        "padding": [tokens // 10] * steps,
        "peak_bytes": 3 * 2**20,
        "peak_total_bytes": 9 * 2**20,
    }


def training(rounds: int = 6) -> dict[str, Any]:
    """Two steps a turn; every objective's steps cost `RATIOS` times SFT's of the round."""
    return {
        "steps_per_epoch": dict.fromkeys(RATIOS, 10.0),
        "kinds": {},
        "steps": 2,
        "batch_size": 8,
        "workers": 1,
        "contenders": {name: to_dict(ObjectiveConfig(name=name)) for name in RATIOS},
        "machine": MACHINE,
        "energy_sources": [],
        "passes": {name: passes(1 + (name == "sdpo"), 1, 500, 2) for name in RATIOS},
        "rounds": [
            {
                "round": n,
                "order": list(RATIOS),
                "size": 1000,
                "load": [0.5, 0.7],
                "turns": {name: turn([SFT[n] * r * 0.9, SFT[n] * r * 1.1]) for name, r in RATIOS.items()},
            }
            for n in range(rounds)
        ],
    }


def decoding(rounds: int = 6) -> dict[str, Any]:
    """Twenty users a turn; beam search takes a tenth of a second for them, generate three times as long."""
    slow = {"beam": 1.0, "generate": 3.0}
    return {
        "passes_size": 20,
        "titles": 600,
        "contenders": {
            name: {"config": to_dict(DecodingConfig()), "peer": name == "generate"} for name in slow
        },
        "machine": MACHINE,
        "energy_sources": [],
        "passes": {name: passes(7, 0, 2000, 1) for name in slow},
        "rounds": [
            {
                "round": n,
                "order": list(slow),
                "size": 20,
                "load": [0.5, 0.7],
                "turns": {name: turn([0.1 * factor * SFT[n]]) for name, factor in slow.items()},
            }
            for n in range(rounds)
        ],
    }


def content(**changes: Any) -> dict[str, Any]:
    """The whole file."""
    config = EfficiencyConfig(base_model="local:tiny")
    return {
        "schema": SCHEMA,
        "settings": config.settings(),
        "dataset": "demo",
        "data_hash": "d" * 16,
        "base_model": "local:tiny",
        "base_model_kind": "local stand-in",
        "notes": [],
        "git": None,
        "created": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T04:04:05+00:00",
        "training": training(),
        "decoding": decoding(),
        **changes,
    }
