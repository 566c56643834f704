"""Figures of the benchmark: time per epoch against NDCG@10 (the paper's Figures 5 and 9), and ratios."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bearray.efficiency.statistics import Interval, Row
from bearray.report.efficiency import Efficiency, Point
from bearray.report.efficiency_text import duration, spread, subject
from bearray.report.figures import COLOURS, INK, MARKERS, Figure, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABELLED = 8
"""Points up to which each has its name beside it; more of them have a legend."""


def efficiency_figures(found: Efficiency) -> list[Figure]:
    """Quality against cost where the storage has runs, then the ratios of what was timed."""
    figures = [_quality(found)] if found.points else []
    if found.training:
        figures.append(
            _bars("efficiency-training", found, found.training, "SFT", "an optimiser step", "s/step")
        )
    if found.decoding:
        figures.append(
            _bars("efficiency-decoding", found, found.decoding, "beam search", "decoding a user", "s/user")
        )
    return figures


def _quality(found: Efficiency) -> Figure:
    told = "; ".join(
        f"{p.label}: {duration(p.epoch_seconds.value)}, NDCG@10 {p.ndcg:.4f} ({p.low:.4f} to {p.high:.4f})"
        for p in found.points
    )
    return Figure(
        name="efficiency-ndcg",
        caption=(
            f"Time per epoch against test NDCG@10: {subject(found)}; the paper's Figures 5 and 9. Times are "
            "steps of an epoch times the median step, with its 95% interval over rounds; NDCG@10 has its 95% "
            "interval over users. Up and to the left is better."
        ),
        alt=f"Time per epoch against NDCG@10. {told}.",
        panels=(_scatter(found.points),),
    )


def _scatter(points: Sequence[Point]) -> Callable[[Axes], None]:
    from matplotlib.ticker import NullFormatter

    crowded = len(points) > _LABELLED

    def draw(ax: Axes) -> None:
        for i, p in enumerate(points):
            colour, x = COLOURS[i % len(COLOURS)], p.epoch_seconds
            ax.plot([x.low, x.high], [p.ndcg, p.ndcg], color=colour, linewidth=1.2)
            ax.plot([x.value, x.value], [p.low, p.high], color=colour, linewidth=1.2)
            ax.plot(
                [x.value],
                [p.ndcg],
                marker=MARKERS[(i + i // len(COLOURS)) % len(MARKERS)],
                color=colour,
                markersize=7,
                label=p.label,
            )
            if crowded:
                continue
            ax.annotate(
                short(p.label),
                xy=(x.value, p.ndcg),
                xytext=(6, 5),
                textcoords="offset points",
                fontsize=9,
                color=colour,
            )
        if crowded:
            ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=7, frameon=False, borderaxespad=0)
        ax.margins(y=0.12)
        times = [p.epoch_seconds for p in points]
        if crowded:  # costs lie orders of magnitude apart
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.set_xlim(0.8 * min(t.low for t in times), 1.25 * max(t.high for t in times))
        else:
            ax.set_xlim(0, 1.3 * max(t.high for t in times))
        ax.set_xlabel("seconds per epoch")
        ax.set_ylabel("NDCG@10")
        ax.set_title("Quality against cost of training")

    return draw


def _bars(name: str, found: Efficiency, rows: Sequence[Row], baseline: str, what: str, unit: str) -> Figure:
    relative = all(row.ratio is not None for row in rows)
    values = [row.ratio if relative and row.ratio is not None else row.seconds for row in rows]
    told = "; ".join(f"{row.label} {spread(v)}" for row, v in zip(rows, values, strict=True))
    measure = f"time relative to {baseline}, paired by round" if relative else unit
    return Figure(
        name=name,
        caption=(
            f"Cost of {what}: {subject(found)}; {measure}. Medians over interleaved rounds, thin lines are "
            "95% intervals."
        ),
        alt=f"Bar chart: {measure}. {told}.",
        panels=(_bar_panel([row.label for row in rows], values, measure, relative=relative),),
    )


def _bar_panel(
    labels: Sequence[str], values: Sequence[Interval], measure: str, *, relative: bool
) -> Callable[[Axes], None]:
    def draw(ax: Axes) -> None:
        right = max(v.high for v in values)
        for i, v in enumerate(values):
            y, colour = len(labels) - 1 - i, COLOURS[i % len(COLOURS)]
            ax.barh([y], [v.value], height=0.6, color="none", edgecolor=colour, linewidth=1.2)
            ax.plot([v.low, v.high], [y, y], color=colour, linewidth=1.4)
            ax.annotate(
                f"{v.value:.2f}" if relative else f"{v.value:.3g}",
                xy=(v.high, y),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
                color=colour,
            )
        ax.set_yticks(range(len(labels)), [short(label, 26) for label in reversed(labels)], fontsize=7.5)
        ax.tick_params(axis="y", length=0, labelcolor=INK)
        ax.set_ylim(-0.6, len(labels) - 0.4)
        ax.set_xlim(0, 1.15 * right)
        ax.grid(visible=False, axis="y")
        ax.set_xlabel(measure, fontsize=8.5)
        ax.set_title("Cost")

    return draw
