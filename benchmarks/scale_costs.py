"""The arithmetic of docs/scale.md: FLOPs and bytes from models' shapes, times from rates, what is assumed.

`scale.py` makes the page's tables of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

HERE = Path(__file__).resolve().parent

GPUS = (1, 8, 64)
BATCH, MICRO_BATCH, LORA_RANK, SHARD, BEAMS = 128, 16, 8, 256, 10
"""The project's defaults: windows a step, windows a micro-batch, LoRA rank (query and value), users of a
shard, beam width."""
PAPER_WINDOWS, PAPER_USERS = 10_000, 5_000
"""Training windows of an epoch, and test windows, of the paper."""
MANY = 100_000_000
"""Users of a large service, with one window each."""


@dataclass(frozen=True)
class Model:
    """A decoder's shape, as on its model card."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool

    @property
    def body(self) -> int:
        """Weights that every token passes through: those of attention and MLP."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.layers * self.hidden * (2 * queries + 2 * keys + 3 * self.intermediate)

    @property
    def weights(self) -> int:
        """All weights."""
        return self.body + self.hidden * self.vocabulary * (1 if self.tied else 2)

    @property
    def adapter(self) -> int:
        """LoRA's weights."""
        queries, values = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.layers * LORA_RANK * (2 * self.hidden + queries + values)

    @property
    def cache_bytes(self) -> int:
        """Keys and values of a token in bfloat16."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim

    def attention(self, tokens: float, context: float) -> float:
        """FLOPs of the two products of `tokens` queries with `context` keys and values on average."""
        return 4 * self.layers * self.heads * self.head_dim * tokens * context

    def forward(self, tokens: float, context: float) -> float:
        """FLOPs of a forward pass without the output projection."""
        return 2 * self.body * tokens + self.attention(tokens, context)

    def head(self, positions: float) -> float:
        """FLOPs of the output projection at so many positions."""
        return 2 * positions * self.hidden * self.vocabulary


MODELS = (
    Model("Llama-3.2-1B", 2048, 8192, 16, 32, 8, 64, 128_256, True),
    Model("Llama-3.2-3B", 3072, 8192, 28, 24, 8, 128, 128_256, True),
    Model("Llama-3-8B", 4096, 14336, 32, 32, 8, 128, 128_256, False),
)


@dataclass(frozen=True)
class GPU:
    """A card by its data sheet: dense bfloat16 rate [FLOP/s] and memory [bytes]."""

    name: str
    peak: float
    memory: float
    source: str


CARDS = (
    GPU("L4", 121e12, 24e9, "https://www.nvidia.com/en-us/data-center/l4/"),
    GPU("L40S", 362e12, 48e9, "https://www.nvidia.com/en-us/data-center/l40s/"),
    GPU("A100 80GB SXM", 312e12, 80e9, "https://www.nvidia.com/en-us/data-center/a100/"),
    GPU("H100 SXM", 989e12, 80e9, "https://www.nvidia.com/en-us/data-center/h100/"),
    GPU("H200 SXM", 989e12, 141e9, "https://www.nvidia.com/en-us/data-center/h200/"),
)
H100 = CARDS[3]


def _assume(value: float, form: str, text: str) -> float:
    """A field of `Assumed`: its value, how it is printed, what it is."""
    default: float = field(default=value, metadata={"form": form, "text": text})
    return default


@dataclass(frozen=True)
class Assumed:
    """What has not been measured. Change a value here and run the script to see what hangs on it."""

    training_utilisation: float = _assume(
        0.40, "{:.0%}", "share of the peak rate that a training step reaches"
    )
    decoding_utilisation: float = _assume(0.25, "{:.0%}", "share of the peak rate that decoding reaches")
    step_seconds: float = _assume(
        0.05, "{:.2f} s", "fixed time of a training step: launches, optimiser, waiting for the slowest worker"
    )
    network_gb: float = _assume(10.0, "{:.0f} GB/s", "rate at which gradients are summed over nodes")
    start_seconds: float = _assume(
        60.0, "{:.0f} s", "until an actor has loaded model and trie, once an evaluation"
    )


ASSUMED = Assumed()


@dataclass(frozen=True)
class Measured:
    """What the committed benchmarks say."""

    prompt_tokens: float
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
    def answer_tokens(self) -> float:
        """A title and the end of the sequence."""
        return self.title_tokens + 1

    def window_tokens(self, micro_batch: int) -> float:
        """Tokens of a training window that are computed: the prompts' common start once a micro-batch."""
        return self.prompt_tokens - self.shared_tokens * (1 - 1 / micro_batch) + self.answer_tokens


def load(folder: Path = HERE / "results") -> Measured:
    """Read decoding-cpu.json and catalogue-cpu.json."""
    decoding = json.loads((folder / "decoding-cpu.json").read_text(encoding="utf-8"))
    catalogue = json.loads((folder / "catalogue-cpu.json").read_text(encoding="utf-8"))
    sizes = {int(titles): figures for titles, figures in catalogue["catalogues"].items()}
    return Measured(
        prompt_tokens=decoding["prompt_tokens"]["mean"],
        shared_tokens=decoding["prompt_tokens"]["shared"],
        title_tokens=sizes[max(sizes)]["tokens_a_title"],
        ratio=decoding["times_the_prefill"],
        ratio_apart={
            name: by_size[str(max(sizes))]["times_the_prefill"]
            for name, by_size in catalogue["decoding"].items()
        },
        catalogues=sizes,
    )


def training_flops(model: Model, measured: Measured, micro_batch: int = MICRO_BATCH) -> float:
    """A window, forward and backward. Frozen weights need the gradient of their input and none of their own,
    so the backward pass costs what the forward pass does, but for attention: four products for two."""
    tokens, context = measured.window_tokens(micro_batch), measured.prompt_tokens / 2
    once = model.forward(tokens, context) + model.head(measured.answer_tokens)
    return 2 * once + model.attention(tokens, context)


def decoding_flops(model: Model, measured: Measured, normalize: str) -> float:
    """A user: the prompt's FLOPs times the measured ratio."""
    return model.forward(measured.prompt_tokens, measured.prompt_tokens / 2) * measured.ratio[normalize]


def epoch_seconds(
    model: Model, measured: Measured, gpus: int, *, windows: int, batch: int, card: GPU = H100
) -> float:
    """An epoch without its validation; a step's windows are shared out evenly."""
    windows_a_gpu = ceil(min(batch, windows) / gpus)
    flops = windows_a_gpu * training_flops(model, measured, min(MICRO_BATCH, windows_a_gpu))
    compute = flops / (card.peak * ASSUMED.training_utilisation)
    # A ring moves each float32 gradient twice.
    network = 2 * 4 * model.adapter / (ASSUMED.network_gb * 1e9) if gpus > 1 else 0.0
    return ceil(windows / batch) * (compute + network + ASSUMED.step_seconds)


def evaluation_seconds(
    model: Model, measured: Measured, gpus: int, *, users: int, normalize: str, card: GPU = H100
) -> float:
    """An evaluation: shards of users in turn on each GPU, after the start."""
    shards = ceil(ceil(users / SHARD) / gpus)
    each = decoding_flops(model, measured, normalize) / (card.peak * ASSUMED.decoding_utilisation)
    return ASSUMED.start_seconds + shards * min(SHARD, users) * each
