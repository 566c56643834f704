"""What an epoch and an evaluation cost on 1, 8 and 64 GPUs: the tables of docs/scale.md.

    python benchmarks/scale.py            # writes docs/scale.md and bearray/planning/measured.json
    python benchmarks/scale.py --check    # exit code 1 if they are not what this would write

No GPU is used. Token counts, the trie's size and the ratio of decoding to prefill are read from
benchmarks/results/; floating-point operations follow from the models' shapes; peak rates are NVIDIA's; what
has not been measured is in `Assumed` (bearray/planning/assumed.py) and is printed as such. What the results
say is also written to bearray/planning/measured.json, which `bearray plan` reads.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

from scale_costs import (
    BATCH,
    BEAMS,
    FACTS,
    GPUS,
    HERE,
    MANY,
    MICRO_BATCH,
    MODELS,
    PAGE_CARDS,
    PAPER_USERS,
    PAPER_WINDOWS,
    SHARD,
    Measured,
    adapter,
    epoch_seconds,
    evaluation_seconds,
    facts,
    load,
)

from bearray.planning.assumed import ASSUMED, Assumed
from bearray.planning.costs import decoding_flops, training_flops
from bearray.planning.text import duration

PAGE = HERE.parent / "docs" / "scale.md"


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
        (
            "follows: tokens computed for a training window",
            f"{m.work.window_tokens(MICRO_BATCH):.0f}",
            follows,
        )
    )
    return table(("measured", "value", "from"), rows)


def assumed_table() -> str:
    rows = [
        (f.metadata["text"], f.metadata["form"].format(getattr(ASSUMED, f.name))) for f in fields(Assumed)
    ]
    return table(("assumed", "value"), rows)


def cards_table() -> str:
    rows = [(f"[{c.name}]({c.source})", f"{c.peak / 1e12:.0f}", f"{c.memory / 1e9:.0f}") for c in PAGE_CARDS]
    return table(("GPU", "dense bfloat16, TFLOP/s", "memory, GB"), rows)


def flops_table(m: Measured) -> str:
    rows = [
        (
            model.name,
            f"{model.weights / 1e9:.2f}",
            f"{model.forward(1, m.prompt_tokens / 2) / 1e9:.2f}",
            f"{training_flops(model, m.work, MICRO_BATCH) / 1e12:.2f}",
            *(f"{decoding_flops(model, m.work, name) / 1e12:.2f}" for name in m.ratio),
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
            times = [epoch_seconds(model, m.work, g, windows=windows, batch=batch(g)) for g in GPUS]
            rows.append((title, model.name, *map(duration, times), _hours(times[-1] * GPUS[-1])))
    return table(("windows of an epoch", "model", *_on(), f"GPU-hours on {GPUS[-1]}"), rows, left=2)


def evaluation_table(m: Measured) -> str:
    rows = []
    for users in (PAPER_USERS, MANY):
        for model in MODELS:
            for name in m.ratio:
                times = [evaluation_seconds(model, m.work, g, users=users, normalize=name) for g in GPUS]
                hours = _hours(times[-1] * min(GPUS[-1], ceil(users / SHARD)))
                rows.append((f"{users:,}", model.name, f'"{name}"', *map(duration, times), hours))
    return table(("users", "model", "normaliser", *_on(), f"GPU-hours on {GPUS[-1]}"), rows, left=3)


def other_cards_table(m: Measured) -> str:
    model = MODELS[1]
    rows = []
    for card in PAGE_CARDS:
        epoch = epoch_seconds(model, m.work, 1, windows=PAPER_WINDOWS, batch=BATCH, card=card)
        test = evaluation_seconds(model, m.work, 1, users=PAPER_USERS, normalize="trie", card=card)
        per_hour = 3_600 * card.peak * ASSUMED.decoding_utilisation / decoding_flops(model, m.work, "trie")
        rows.append((card.name, duration(epoch), duration(test), f"{per_hour / 1e3:,.0f}"))
    return table(("GPU", "an epoch", "an evaluation", "thousand users an hour"), rows)


def memory_table(m: Measured) -> str:
    rows = []
    tail = BEAMS * m.work.answer_tokens
    for model in MODELS:
        state = (4 + 4 + 8) * adapter(model)  # the adapter, its gradient, Adam's moments, all float32
        cache = 2 * model.cache_numbers * (m.prompt_tokens + tail) / 1e6
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


def _by_turn(above: Sequence[float], below: Sequence[float]) -> float:
    """Median over turns of one contender's time over another's in the same turn, as training.py reports."""
    return median(a / b for a, b in zip(above, below, strict=True))


def training_table(folder: Path = HERE / "results") -> str:
    """Measured steps of training, where training-cpu-*.json are there: ratios, not seconds."""
    rows: list[tuple[object, ...]] = []
    for file in sorted(folder.glob("training-cpu-*.json")):
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        seconds = result["seconds"]
        for name in ("sft", "msl", "bear released"):
            released = "released bear" if name == "bear released" else f"released {name}"
            against = f"{_by_turn(seconds[released], seconds[name]):.1f} x"
            beside_sft = f"{_by_turn(seconds[name], seconds['sft']):.2f}"
            rows.append((result["shape"], name, against, beside_sft, file.name))
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
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if a file would change")
    options = parser.parse_args()
    measured = load()
    wanted = {
        PAGE: filled(PAGE.read_text(encoding="utf-8"), tables(measured)),
        FACTS: json.dumps(facts(measured), indent=2) + "\n",
    }
    changed = [p for p, text in wanted.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    if options.check:
        for path in changed:
            print(
                f"{path} is not what {Path(__file__).name} makes of benchmarks/results; run it",
                file=sys.stderr,
            )
        return int(bool(changed))
    for path in changed:
        path.write_text(wanted[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
