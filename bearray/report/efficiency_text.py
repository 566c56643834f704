"""What objectives and decoders cost, in words: the same cells for Markdown, HTML and LaTeX; and as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10
from typing import Any

from bearray.efficiency.statistics import Interval, Row
from bearray.report.efficiency import Efficiency
from bearray.report.formats import to_csv
from bearray.report.latex import text_tables
from bearray.report.markdown import md, table_lines

Cells = tuple[list[str], list[list[str]]]
"""Column names and rows; the first column of a row is its name."""

TRAINING_CAPTION = (
    "Wall time of an optimiser step as a user pays it (negatives, reference passes and searches, update "
    "included): median over rounds with its 95% interval; its ratio to SFT's in the same round (of the same "
    "LoRA dropout), and to BEAR's where that was timed; tokens of "
    "prompts and targets a second; memory of a step at most, above what was in use before it; forward and "
    "backward passes of the model's body a step, and tokens fed to it (share of padding), as counted; an "
    "epoch, extrapolated from the step."
)
DECODING_CAPTION = (
    "Wall time of decoding: median over rounds with its 95% interval; its ratio to beam search (trie) in the "
    "same round; users a second; memory at most, above what was in use before; forward passes of a round and "
    "tokens fed for a user, as counted. generate is transformers' own beam search over the same trie."
)


def spread(value: Interval | None, digits: int = 3) -> str:
    """1.23 [1.20, 1.26] with significant digits, or a dash."""
    if value is None:
        return "–"
    return f"{figures(value.value, digits)} [{figures(value.low, digits)}, {figures(value.high, digits)}]"


def figures(value: float, digits: int = 3) -> str:
    """A number with so many significant digits at least, none of them after an E."""
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - floor(log10(abs(value))))
    return f"{value:,.{decimals}f}"


def duration(seconds: float) -> str:
    """0.52 s, 43 s, 12.3 min, 4.1 h."""
    if seconds < 100:
        return f"{figures(seconds)} s"
    return f"{figures(seconds / 60)} min" if seconds < 6000 else f"{figures(seconds / 3600)} h"


def _epoch(value: Interval | None) -> str:
    if value is None:
        return "–"
    return f"{duration(value.value)} [{duration(value.low)}, {duration(value.high)}]"


def megabytes(value: int | None) -> str:
    """MiB, or a dash where it could not be measured."""
    return "–" if value is None else f"{value / 2**20:,.0f}"


def training_cells(rows: Sequence[Row]) -> Cells:
    """A row an objective."""
    joules = any(row.joules for row in rows)
    bear = any(row.bear_ratio for row in rows)
    header = ["Objective", "s/step", "× SFT", *(["× BEAR"] if bear else []), "tokens/s", "peak MiB"]
    header += ["forward", "backward", "tokens fed", "epoch", *(["J/step"] if joules else [])]
    lines = []
    for row in rows:
        padding = row.padding / row.fed if row.fed else 0.0
        cells = [row.label, spread(row.seconds), spread(row.ratio)]
        cells += [spread(row.bear_ratio)] if bear else []
        cells += [
            figures(row.speed.value),
            megabytes(row.peak_bytes),
            f"{row.forward:g}",
            f"{row.backward:g}",
        ]
        cells += [f"{row.fed:,.0f} ({padding:.0%})", _epoch(row.epoch_seconds)]
        lines.append([*cells, *([spread(row.joules)] if joules else [])])
    return header, lines


def decoding_cells(rows: Sequence[Row]) -> Cells:
    """A row a decoder."""
    joules = any(row.joules for row in rows)
    header = ["Decoder", "ms/user", "× beam", "users/s", "peak MiB", "forward/round", "tokens fed/user"]
    header += ["J/user"] if joules else []
    lines = []
    for row in rows:
        cells = [row.label, spread(row.seconds.times(1000)), spread(row.ratio), figures(row.speed.value)]
        cells += [megabytes(row.peak_bytes), f"{row.forward:g}", f"{row.fed:,.0f}"]
        lines.append([*cells, *([spread(row.joules)] if joules else [])])
    return header, lines


def subject(found: Efficiency) -> str:
    kind = f" ({found.base_model_kind})" if found.base_model_kind else ""
    return f"{found.dataset}, {found.base_model}{kind}"


def parts(found: Efficiency) -> list[tuple[str, Cells]]:
    """(caption, cells) of what was timed."""
    shown = []
    if found.training:
        shown.append((TRAINING_CAPTION, training_cells(found.training)))
    if found.decoding:
        shown.append((DECODING_CAPTION, decoding_cells(found.decoding)))
    return shown


def markdown(found: Efficiency | None, heading: str = "## What it costs") -> list[str]:
    """The section as lines of Markdown."""
    if found is None:
        return []
    lines = [heading, "", f"**{md(subject(found))}**", ""]
    for caption, (header, rows) in parts(found):
        cells = [[md(cell) for cell in row] for row in rows]
        lines += [*table_lines(header, cells), "", md(caption), ""]
    told = [*found.facts, *found.notes]
    return [*lines, *(f"- {md(line)}" for line in told), *([""] if told else [])]


def latex(found: Efficiency) -> str:
    """A table environment in the booktabs style for each part."""
    return text_tables(subject(found), parts(found))


def csv(found: Efficiency) -> str:
    """One row a contender and measure; intervals have their own coverage beside them."""
    rows: list[tuple[Any, ...]] = []
    for part, members in (("training", found.training), ("decoding", found.decoding)):
        unit = "step" if part == "training" else "user"
        per = "step" if part == "training" else "round"
        for row in members:
            where = (found.dataset, found.base_model, part, row.label)
            measured = {
                f"seconds_per_{unit}": row.seconds,
                "ratio": row.ratio,
                "bear_ratio": row.bear_ratio,
                "cpu_ratio": row.cpu_ratio,
                "tokens_per_second" if part == "training" else "users_per_second": row.speed,
                "epoch_seconds": row.epoch_seconds,
                f"joules_per_{unit}": row.joules,
            }
            for name, i in measured.items():
                if i is not None:
                    rows.append((*where, name, i.value, i.low, i.high, i.coverage))
            counted = {
                f"forward_passes_per_{per}": row.forward,
                f"backward_passes_per_{per}": row.backward,
                f"tokens_fed_per_{unit}": row.fed,
                f"padding_per_{unit}": row.padding,
                "peak_bytes_above_before": row.peak_bytes,
                "peak_bytes_total": row.peak_total_bytes,
            }
            rows += [(*where, name, value, None, None, None) for name, value in counted.items()]
    header = "dataset base_model part name measure value low high coverage"
    return to_csv(header.split(), rows)


def ratios_csv(found: Efficiency) -> str:
    """The time of each contender relative to each other one's, paired by round: one row a pair."""
    rows = [
        (found.dataset, found.base_model, part, row.label, other, r.value, r.low, r.high, r.coverage)
        for part, members in (("training", found.training), ("decoding", found.decoding))
        for row in members
        for other, r in row.ratios.items()
    ]
    header = "dataset base_model part name relative_to ratio low high coverage"
    return to_csv(header.split(), rows)
