"""What an epoch and an evaluation cost on 1, 8 and 64 GPUs: the tables of docs/scale.md.

    python benchmarks/scale.py            # writes the tables into docs/scale.md
    python benchmarks/scale.py --check    # exit code 1 if the page is not what this would write

No GPU is used. Token counts, the trie's size and the ratio of decoding to prefill are read from
benchmarks/results/; floating-point operations follow from the models' shapes; peak rates are NVIDIA's; what
has not been measured is in `Assumed` and is printed as such.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from math import ceil
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "scale.md"

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


def duration(seconds: float) -> str:
    for size, unit in ((86_400 * 3, "days"), (3_600 * 2, "h"), (120, "min")):
        if seconds >= size:
            value = seconds / {"days": 86_400, "h": 3_600, "min": 60}[unit]
            return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{seconds:.0f} s"


def gigabytes(number: float) -> str:
    value = number / 1e9
    return f"{value:,.0f} GB" if value >= 10 else f"{value:.2g} GB"


def table(head: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> str:
    """A Markdown table; all columns but the first `left` are numbers."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    lines = [head, rule, *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def measured_table(m: Measured) -> str:
    titles, trie = m.largest
    decoding, catalogue = "decoding-cpu.json", "catalogue-cpu.json"
    rows = [
        ("tokens of a prompt", f"{m.prompt_tokens:.0f}", decoding),
        ("of which all prompts share the first", f"{m.shared_tokens:.0f}", decoding),
        ("tokens of a title", f"{m.title_tokens:.1f}", catalogue),
    ]
    for name, ratio in m.ratio.items():
        apart = m.ratio_apart[name]
        rows.append((f'decoding a user over computing the prompt, "{name}"', f"{ratio:.2f}", decoding))
        rows.append((f'the same where prompts share no start, "{name}"', f"{apart:.2f}", catalogue))
    rows += [
        (f"nodes of the trie a title, at {titles:,} titles", f"{trie['nodes'] / titles:.1f}", catalogue),
        ("bytes a node", f"{m.bytes_a_node:.0f}", catalogue),
        (f"CPU seconds to build it, at {titles:,} titles", f"{trie['build_cpu_s']:.1f}", catalogue),
    ]
    follows = f"micro-batches of {MICRO_BATCH}"
    rows.append(
        ("follows: tokens computed for a training window", f"{m.window_tokens(MICRO_BATCH):.0f}", follows)
    )
    return table(("measured", "value", "from"), rows)


def assumed_table() -> str:
    rows = [
        (f.metadata["text"], f.metadata["form"].format(getattr(ASSUMED, f.name))) for f in fields(Assumed)
    ]
    return table(("assumed", "value"), rows)


def cards_table() -> str:
    rows = [(f"[{c.name}]({c.source})", f"{c.peak / 1e12:.0f}", f"{c.memory / 1e9:.0f}") for c in CARDS]
    return table(("GPU", "dense bfloat16, TFLOP/s", "memory, GB"), rows)


def flops_table(m: Measured) -> str:
    rows = [
        (
            model.name,
            f"{model.weights / 1e9:.2f}",
            f"{model.forward(1, m.prompt_tokens / 2) / 1e9:.2f}",
            f"{training_flops(model, m) / 1e12:.2f}",
            *(f"{decoding_flops(model, m, name) / 1e12:.2f}" for name in m.ratio),
        )
        for model in MODELS
    ]
    decoded = tuple(f'a user decoded, "{name}", TFLOP' for name in m.ratio)
    return table(
        ("model", "weights, 10^9", "a prompt token, GFLOP", "a training window, TFLOP", *decoded), rows
    )


def epoch_table(m: Measured) -> str:
    rows = []
    for title, windows, batch in (
        (f"{PAPER_WINDOWS:,}, batch {BATCH}", PAPER_WINDOWS, lambda gpus: BATCH),
        (f"{MANY:,}, batch {BATCH} a GPU", MANY, lambda gpus: BATCH * gpus),
    ):
        for model in MODELS:
            times = [epoch_seconds(model, m, g, windows=windows, batch=batch(g)) for g in GPUS]
            rows.append((title, model.name, *map(duration, times), _hours(times[-1] * GPUS[-1])))
    return table(("windows of an epoch", "model", *_on(), f"GPU-hours on {GPUS[-1]}"), rows, left=2)


def evaluation_table(m: Measured) -> str:
    rows = []
    for users in (PAPER_USERS, MANY):
        for model in MODELS:
            for name in m.ratio:
                times = [evaluation_seconds(model, m, g, users=users, normalize=name) for g in GPUS]
                hours = _hours(times[-1] * min(GPUS[-1], ceil(users / SHARD)))
                rows.append((f"{users:,}", model.name, f'"{name}"', *map(duration, times), hours))
    return table(("users", "model", "normaliser", *_on(), f"GPU-hours on {GPUS[-1]}"), rows, left=3)


def other_cards_table(m: Measured) -> str:
    model = MODELS[1]
    rows = []
    for card in CARDS:
        epoch = epoch_seconds(model, m, 1, windows=PAPER_WINDOWS, batch=BATCH, card=card)
        test = evaluation_seconds(model, m, 1, users=PAPER_USERS, normalize="trie", card=card)
        per_hour = 3_600 * card.peak * ASSUMED.decoding_utilisation / decoding_flops(model, m, "trie")
        rows.append((card.name, duration(epoch), duration(test), f"{per_hour / 1e3:,.0f}"))
    return table(("GPU", "an epoch", "an evaluation", "thousand users an hour"), rows)


def memory_table(m: Measured) -> str:
    rows = []
    tail = BEAMS * m.answer_tokens
    for model in MODELS:
        state = (4 + 4 + 8) * model.adapter  # the adapter, its gradient, Adam's moments, all float32
        cache = model.cache_bytes * (m.prompt_tokens + tail) / 1e6
        rows.append((model.name, gigabytes(2 * model.weights), f"{state / 1e6:.0f} MB", f"{cache:.0f} MB"))
    return table(("model", "weights", "adapter, gradient, Adam", "keys and values of a user, 10 beams"), rows)


def trie_table(m: Measured) -> str:
    titles, trie = m.largest
    many = MANY // titles
    rows = []
    for size in (*sorted(m.catalogues), MANY):
        known = m.catalogues.get(size)
        found = known or {name: many * value for name, value in trie.items()}
        build = found["build_cpu_s"]
        rows.append(
            (
                f"{size:,}",
                f"{found['nodes'] / 1e6:,.2f}",
                gigabytes(found["trie_mb"] * 1e6),
                f"{build:.1g} s" if build < 1 else duration(build),
                gigabytes(found["build_memory_mb"] * 1e6),
                "measured" if known else f"{many} times the row above",
            )
        )
    head = ("items", "nodes, 10^6", "trie", "to build, one core", "memory while building", "")
    return table(head, rows)


def training_table(folder: Path = HERE / "results") -> str:
    """Measured steps of training, where training-cpu-*.json are there: ratios, not seconds."""
    rows: list[tuple[object, ...]] = []
    for file in sorted(folder.glob("training-cpu-*.json")):
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        seconds = {name: sorted(times)[len(times) // 2] for name, times in result["seconds"].items()}
        for name in ("sft", "msl", "bear released"):
            released = seconds["released bear" if name == "bear released" else f"released {name}"]
            against = f"{released / seconds[name]:.1f} x"
            rows.append((result["shape"], name, against, f"{seconds[name] / seconds['sft']:.2f}", file.name))
    if not rows:
        return "(no training-cpu-*.json in benchmarks/results)"
    return table(("model", "objective", "faster than the released way", "against SFT", "from"), rows, left=2)


def _on() -> tuple[str, ...]:
    return tuple(f"{g} GPU{'s' if g > 1 else ''}" for g in GPUS)


def _hours(gpu_seconds: float) -> str:
    hours = gpu_seconds / 3_600
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2f}"


def tables(measured: Measured, folder: Path = HERE / "results") -> dict[str, str]:
    """Every table of the page by its name there."""
    return {
        "measured": measured_table(measured),
        "assumed": assumed_table(),
        "cards": cards_table(),
        "flops": flops_table(measured),
        "epoch": epoch_table(measured),
        "evaluation": evaluation_table(measured),
        "other cards": other_cards_table(measured),
        "memory": memory_table(measured),
        "trie": trie_table(measured),
        "training": training_table(folder),
    }


def filled(page: str, content: dict[str, str]) -> str:
    """The page with each table between its marks.

    Raises:
        ValueError: the page's marks are not exactly the tables' names.
    """
    mark = re.compile(r"<!-- table: (.+?) -->\n.*?<!-- end -->", re.S)
    if sorted(mark.findall(page)) != sorted(content):
        raise ValueError(f"{PAGE.name} has tables {mark.findall(page)}, the script {list(content)}")
    return mark.sub(lambda m: f"<!-- table: {m[1]} -->\n\n{content[m[1]]}\n\n<!-- end -->", page)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if the page would change")
    options = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    wanted = filled(page, tables(load()))
    if options.check:
        if page != wanted:
            print(
                f"{PAGE} is not what {Path(__file__).name} makes of benchmarks/results; run it",
                file=sys.stderr,
            )
        return int(page != wanted)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
