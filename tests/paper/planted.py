"""Run folders of a storage of the paper, as its steps look for them; and the steps that look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bearray.config import override, to_dict
from bearray.paper.config import PaperConfig
from bearray.paper.parts import Part, needs
from bearray.paper.steps import Step, steps

PART = Part("demo", "bigrec", "local:tiny")


def plant(config: PaperConfig, step: Step, method: str, seed: int, *, chosen: bool = True) -> Path:
    """A run of a step, as one that was tested."""
    result = {"status": "finished", "chosen": chosen, "test": {}}
    return write_folder(config, f"{step.part.folder}/runs/{method.lower()}-{seed}", method, result, seed=seed)


def write_folder(
    config: PaperConfig, place: str, method: str, result: dict[str, Any], *, seed: int = 42, **changes: Any
) -> Path:
    """A run folder of the storage; `changes` are of its objective."""
    folder = Path(config.storage) / place
    folder.mkdir(parents=True, exist_ok=True)
    own = {"train.seed": seed, **{f"objective.{name}": value for name, value in changes.items()}}
    run = to_dict(override(config.run, own))
    about = {"method": method, "run": run, "dataset": "demo", "base_model": "local:tiny", "role": "method"}
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def only(config: PaperConfig, words: str) -> Step:
    """The first step whose title has these words."""
    return next(s for s in steps(config, needs(config)) if words in s.title)


def figure_8(config: PaperConfig) -> Step:
    return only(config, "lambda and xi")
