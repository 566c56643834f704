"""Figures of the pruning analysis: rates by method, steps of the cut, and quality against cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bearray.report.cells import metric_words
from bearray.report.figures import (
    COLOURS,
    HATCHES,
    INK,
    LINES,
    MARKERS,
    MUTED,
    Figure,
    legend_below,
    short,
)
from bearray.report.pruning import PruningRow, PruningTable, SearchRow, Share
from bearray.report.pruning_text import percent, search_metrics, subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LAST_STEP = 12
"""Cuts at later steps share a bar."""


def pruning_figures(name: str, table: PruningTable) -> list[Figure]:
    """All figures of a table; `name` begins their file names."""
    figures = [_rates(f"{name}-rate", table)]
    if any(row.cut_steps for row in table.rows):
        figures.append(_steps(f"{name}-steps", table))
    if search_metrics(table.rows):
        figures.append(_costs(f"{name}-cost", table))
    return figures


def _rates(name: str, table: PruningTable) -> Figure:
    ks = list(dict.fromkeys(r.k for row in table.rows for r in row.rates))
    told = []
    for row in table.rows:
        shares = (f"PR@{r.k} {percent(r.exact)} exact, {percent(r.pool)} pool" for r in row.rates)
        told.append(f"{row.label}: {'; '.join(shares)}.")
    return Figure(
        name=name,
        caption=(
            f"Share of deserving targets that beam search prunes: {subject(table)}. Filled marks and solid "
            "lines: exact; open marks and dashed lines: pool. Lines are 95% intervals over users."
        ),
        alt=f"Pruning rates with 95% intervals. {' '.join(told)}",
        panels=tuple(_rate_panel(table.rows, k) for k in ks),
        series=len(table.rows),
    )


def _rate_panel(rows: Sequence[PruningRow], k: int) -> Callable[[Axes], None]:
    def draw(ax: Axes) -> None:
        for i, row in enumerate(rows):
            y = len(rows) - 1 - i
            for rate in (r for r in row.rates if r.k == k):
                _interval(ax, rate.exact, y + 0.14, i, filled=True)
                _interval(ax, rate.pool, y - 0.2, i, filled=False)
        ax.set_yticks(range(len(rows)), [short(r.label) for r in reversed(rows)])
        ax.tick_params(axis="y", length=0, labelcolor=INK)
        ax.set_ylim(-0.6, len(rows) - 0.3)
        shares = [s.share for row in rows for r in row.rates if r.k == k for s in (r.exact, r.pool)]
        right = max((s.high for s in shares if s is not None), default=1.0)
        ax.set_xlim(-0.03 * right, min(1.04, 1.15 * right) or 1.0)
        ax.xaxis.set_major_formatter("{x:.0%}")
        ax.grid(visible=False, axis="y")
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("share pruned")
        ax.set_title(f"PR@{k}")

    return draw


def _interval(ax: Axes, share: Share, y: float, i: int, *, filled: bool) -> None:
    if share.share is None:
        ax.text(0.0, y, "no deserving target", color=MUTED, fontsize=8, va="center")
        return
    colour, value = COLOURS[i % len(COLOURS)], share.share.value
    ax.plot(
        [share.share.low, share.share.high],
        [y, y],
        color=colour,
        linestyle="-" if filled else "--",
        linewidth=1.8,
    )
    ax.plot(
        [value],
        [y],
        marker=MARKERS[i % len(MARKERS)],
        color=colour,
        markerfacecolor=colour if filled else "white",
        markersize=6.5,
    )
    ax.annotate(
        f"{value:.1%}",
        xy=(value, y),
        xytext=(0, 5),
        textcoords="offset points",
        ha="center",
        fontsize=8,
        color=colour,
    )


def _steps(name: str, table: PruningTable) -> Figure:
    told = []
    for row in table.rows:
        counts = ", ".join(f"{n} at step {step}" for step, n in sorted(row.cut_steps.items()))
        told.append(f"{row.label}: {counts or 'none pruned'}.")
    return Figure(
        name=name,
        caption=(
            f"Token of the title, from 1 on, at which pruned targets of the true top list were cut: "
            f"{subject(table)}. Shares of the pruned targets of each method; their number is in the legend."
        ),
        alt=f"Bar chart of the step at which targets were cut. {' '.join(told)}",
        panels=(_step_bars(table.rows),),
        series=len(table.rows),
    )


def _step_bars(rows: Sequence[PruningRow]) -> Callable[[Axes], None]:
    def draw(ax: Axes) -> None:
        last = min(max(step for row in rows for step in row.cut_steps), LAST_STEP)
        later = any(step > last for row in rows for step in row.cut_steps)
        width = 0.84 / len(rows)
        for i, row in enumerate(rows):
            counts = [0] * (last + 1)
            for step, n in row.cut_steps.items():
                counts[min(step, last + 1) - 1] += n
            total = sum(counts)
            x = [s + 1 - 0.42 + width * (i + 0.5) for s in range(last + later)]
            ax.bar(
                x,
                [c / total if total else 0.0 for c in counts[: last + later]],
                width=width,
                color="none",
                edgecolor=COLOURS[i % len(COLOURS)],
                hatch=HATCHES[(i + 1) % len(HATCHES)],
                linewidth=1.1,
                label=f"{short(row.label)} ({total})",
            )
        ticks = [str(s) for s in range(1, last + 1)] + [f"{last + 1}+"] * later
        ax.set_xticks(range(1, last + later + 1), ticks)
        ax.yaxis.set_major_formatter("{x:.0%}")
        ax.grid(visible=False, axis="x")
        ax.set_xlabel("token at which the target was cut")
        ax.set_ylabel("share of pruned targets")
        ax.set_title("Step of the cut")
        ax.legend(frameon=False, fontsize=9, labelcolor=INK)

    return draw


def _costs(name: str, table: PruningTable) -> Figure:
    metric = search_metrics(table.rows)[-1]
    told = []
    for row in table.rows:
        points = (
            f"{s.method} {s.metrics[metric].value:.4f} in {s.milliseconds:.1f} ms and {s.nodes:.0f} nodes"
            for s in row.searches
        )
        told.append(f"{row.label}: {'; '.join(points)}.")
    words = metric_words(metric)
    return Figure(
        name=name,
        caption=(
            f"{words} of wider beams (joined by a line, their width beside the mark) and of exact search "
            f"(open mark) against cost: {subject(table)}. Thin lines are 95% intervals over users. Left by "
            "time, right by prefixes whose continuations were scored, which no machine changes."
        ),
        alt=f"{words} against cost. {' '.join(told)}",
        panels=(
            _cost_panel(table.rows, metric, lambda s: s.milliseconds, "ms per user"),
            _cost_panel(table.rows, metric, lambda s: s.nodes, "nodes per user"),
        ),
        series=len(table.rows),
    )


def _cost_panel(
    rows: Sequence[PruningRow], metric: str, cost: Callable[[SearchRow], float], unit: str
) -> Callable[[Axes], None]:
    def draw(ax: Axes) -> None:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

        for i, row in enumerate(rows):
            colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
            beams = [s for s in row.searches if s.width is not None]
            ax.plot(
                [cost(s) for s in beams],
                [s.metrics[metric].value for s in beams],
                color=colour,
                linestyle=LINES[i % len(LINES)],
                marker=marker,
                label=short(row.label),
            )
            for s in row.searches:
                value, x = s.metrics[metric], cost(s)
                ax.plot([x, x], [value.low, value.high], color=colour, linewidth=0.8)
                if s.width is None:
                    ax.plot([x], [value.value], color=colour, marker=marker, markerfacecolor="white")
                ax.annotate(
                    "exact" if s.width is None else str(s.width),
                    xy=(x, value.value),
                    xytext=(3, 4),
                    textcoords="offset points",
                    fontsize=7.5,
                    color=colour,
                )
        ax.set_xscale("log")
        ax.margins(x=0.12)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel(unit)
        ax.set_ylabel(metric_words(metric))
        ax.set_title(f"{metric_words(metric)} against {unit.split()[0]}")
        legend_below(ax)

    return draw
