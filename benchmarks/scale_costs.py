"""What the committed benchmarks say about cost, for docs/scale.md and for `bearray plan`.

`scale.py` makes the page's tables of it and writes `bearray/planning/measured.json`, which travels with the
package. The arithmetic is the package's own: `bearray.planning.costs`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bearray.config import DecodingConfig, EvaluationConfig, ModelConfig, TrainConfig
from bearray.efficiency.statistics import training_rows
from bearray.planning.cards import CARDS, Device
from bearray.planning.costs import evaluation_seconds as _evaluation_seconds
from bearray.planning.costs import step_seconds
from bearray.planning.shapes import SHAPES, Shape
from bearray.planning.work import Work

HERE = Path(__file__).resolve().parent
FACTS = HERE.parent / "bearray" / "planning" / "measured.json"

GPUS = (1, 8, 64)
BATCH, MICRO_BATCH = TrainConfig().batch_size, TrainConfig().micro_batch_size
SHARD, BEAMS = EvaluationConfig().shard_size, DecodingConfig().beam_width
PAPER_WINDOWS, PAPER_USERS = 10_000, 5_000
"""Training windows of an epoch, and test windows, of the paper."""
MANY = 100_000_000
"""Users of a large service, with one window each."""
MODELS = tuple(SHAPES[name] for name in ("llama-3.2-1b", "llama-3.2-3b", "llama-3-8b"))
H100 = CARDS["h100"]
PAGE_CARDS = tuple(CARDS[name] for name in ("l4", "l40s", "a100-80gb", "h100", "h200"))


def adapter(shape: Shape) -> int:
    """Weights of the project's default adapter."""
    return shape.adapter(ModelConfig().lora_r, ModelConfig().lora_targets)


@dataclass(frozen=True)
class Measured:
    """What the committed benchmarks say."""

    prompt_tokens: float
    longest_prompt_tokens: int
    shared_tokens: float
    title_tokens: float
    ratio: dict[str, float]
    """Decoding a user over computing its prompt, by normaliser, where prompts share their start."""
    ratio_apart: dict[str, float]
    """The same where they share nothing, in the largest catalogue."""
    catalogues: dict[int, dict[str, float]]
    """Titles -> figures of the trie."""

    @property
    def largest(self) -> tuple[int, dict[str, float]]:
        titles = max(self.catalogues)
        return titles, self.catalogues[titles]

    @property
    def bytes_a_node(self) -> float:
        _, trie = self.largest
        return trie["trie_mb"] * 1e6 / trie["nodes"]

    @property
    def work(self) -> Work:
        return Work(
            prompt_tokens=self.prompt_tokens,
            shared_tokens=self.shared_tokens,
            answer_tokens=self.title_tokens + 1,
            longest_prompt=self.longest_prompt_tokens,
            decoding_over_prefill=self.ratio,
        )


def load(folder: Path = HERE / "results") -> Measured:
    """Read decoding-cpu.json and catalogue-cpu.json."""
    decoding = json.loads((folder / "decoding-cpu.json").read_text(encoding="utf-8"))
    catalogue = json.loads((folder / "catalogue-cpu.json").read_text(encoding="utf-8"))
    sizes = {int(titles): figures for titles, figures in catalogue["catalogues"].items()}
    return Measured(
        prompt_tokens=decoding["prompt_tokens"]["mean"],
        longest_prompt_tokens=decoding["prompt_tokens"]["max"],
        shared_tokens=decoding["prompt_tokens"]["shared"],
        title_tokens=sizes[max(sizes)]["tokens_a_title"],
        ratio=decoding["times_the_prefill"],
        ratio_apart={
            name: by_size[str(max(sizes))]["times_the_prefill"]
            for name, by_size in catalogue["decoding"].items()
        },
        catalogues=sizes,
    )


def facts(measured: Measured, folder: Path = HERE / "results") -> dict[str, Any]:
    """The content of `bearray/planning/measured.json` (`bearray.planning.work.measured_facts`)."""
    source = "efficiency-cpu-office.json"
    training = json.loads((folder / source).read_text(encoding="utf-8"))["training"]
    ratios = {row.label: row.cpu_ratio for row in training_rows(training)}
    return {
        "prompt_tokens": measured.prompt_tokens,
        "longest_prompt_tokens": measured.longest_prompt_tokens,
        "shared_tokens": measured.shared_tokens,
        "title_tokens": measured.title_tokens,
        "decoding_over_prefill": measured.ratio,
        "objectives": {
            label: {"ratio": round(r.value, 3), "low": round(r.low, 3), "high": round(r.high, 3)}
            for label, r in ratios.items()
            if r is not None
        },
        "from": {
            "prompt_tokens": "decoding-cpu.json",
            "title_tokens": "catalogue-cpu.json",
            "decoding_over_prefill": "decoding-cpu.json",
            "objectives": source,
        },
    }


def epoch_seconds(
    shape: Shape, work: Work, gpus: int, *, windows: int, batch: int, card: Device = H100
) -> float:
    """An epoch without its validation, at the project's defaults."""
    steps = -(-windows // batch)
    return steps * step_seconds(
        shape,
        work,
        card,
        windows=min(batch, windows),
        workers=gpus,
        micro_batch=MICRO_BATCH,
        adapter=adapter(shape),
    )


def evaluation_seconds(
    shape: Shape, work: Work, gpus: int, *, users: int, normalize: str, card: Device = H100
) -> float:
    """An evaluation, at the project's defaults."""
    return _evaluation_seconds(
        shape, work, card, actors=gpus, users=users, normalize=normalize, shard_size=SHARD
    )
