"""Figures of the paper's document: bars by data set with intervals, and lines over a setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bearray.report.figures import (
    HATCHES,
    INK,
    MUTED,
    Figure,
    colour_of,
    label_ends,
    legend_below,
    line_of,
    marker_of,
    plain,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True)
class Value:
    """A number with its 95% interval, if it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    def words(self, digits: int = 4) -> str:
        """0.1234 (0.1000 to 0.1500)."""
        text = f"{self.value:.{digits}f}"
        if self.low is None or self.high is None:
            return text
        return f"{text} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Bars: a group a data set, in it one bar a series."""

    title: str
    label: str
    """Of the vertical axis."""
    series: Mapping[str, Mapping[str, Value]]
    """By name: values by group."""
    paper: Mapping[str, float] = field(default_factory=dict)
    """The paper's values by group."""
    threshold: float | None = None
    """A line across: what the paper says in words."""

    @property
    def groups(self) -> list[str]:
        return list(dict.fromkeys(group for values in self.series.values() for group in values))


def bars(name: str, caption: str, panels: Sequence[Panel]) -> Figure:
    """Panels of bars side by side; a series looks the same in all of them."""
    names = list(dict.fromkeys(series for panel in panels for series in panel.series))
    names.sort(
        key=lambda name: max(list(panel.series).index(name) for panel in panels if name in panel.series)
    )
    return Figure(
        name=name,
        caption=caption,
        alt=f"Bar chart. {' '.join(map(_told, panels))}",
        panels=tuple(_draw_bars(panel, names) for panel in panels),
    )


def _told(panel: Panel) -> str:
    parts = []
    for group in panel.groups:
        values = [f"{name} {v[group].words()}" for name, v in panel.series.items() if group in v]
        values += [f"paper {panel.paper[group]:.4f}"] if group in panel.paper else []
        parts.append(f"{group}: {', '.join(values)}")
    return f"{panel.title}: {'; '.join(parts)}."


def _draw_bars(panel: Panel, names: Sequence[str]) -> Callable[[Axes], None]:
    def draw(ax: Axes) -> None:
        groups, width = panel.groups, 0.8 / len(panel.series)
        for i, (name, values) in enumerate(panel.series.items()):
            places = [groups.index(g) - 0.4 + (i + 0.5) * width for g in values]
            tops = [v.value for v in values.values()]
            style = names.index(name)
            colour = colour_of(style)
            ax.bar(
                places,
                tops,
                width=0.86 * width,
                color="none",
                edgecolor=colour,
                hatch=HATCHES[style % len(HATCHES)],
                linewidth=1.2,
                label=plain(name),
            )
            for x, v in zip(places, values.values(), strict=True):
                top = v.value if v.high is None else v.high
                if v.low is not None and v.high is not None:
                    ax.plot([x, x], [v.low, v.high], color=colour, linewidth=1.6)
                ax.annotate(
                    f"{v.value:.2g}" if v.value < 0.1 else f"{v.value:.2f}",
                    xy=(x, top),
                    xytext=(0, 3),
                    textcoords="offset points",
                    ha="center",
                    fontsize=7.5,
                    color=colour,
                )
        for group, value in panel.paper.items():
            if group in groups:
                x = groups.index(group)
                label = "paper" if group == next(iter(g for g in panel.paper if g in groups)) else None
                ax.plot([x - 0.45, x + 0.45], [value, value], color=INK, linewidth=1.4, label=label)
        if panel.threshold is not None:
            ax.axhline(panel.threshold, color=MUTED, linewidth=1.2, linestyle="--", label="paper: more than")
        ax.set_xticks(range(len(groups)), [short(g, 14) for g in groups])
        ax.tick_params(axis="x", length=0, labelcolor=INK)
        ax.set_xlim(-0.6, len(groups) - 0.4)
        ax.set_ylim(bottom=0)
        ax.margins(y=0.12)
        ax.grid(visible=False, axis="x")
        ax.set_ylabel(panel.label)
        ax.set_title(panel.title)
        legend_below(ax, gap=0.12, fontsize=8.5)

    return draw


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One data set's values over a setting."""

    name: str
    points: tuple[tuple[float, float], ...]
    """(setting, value), by setting."""
    chosen: float | None
    """The setting that the search chose."""


def curves(name: str, caption: str, panels: Mapping[str, Sequence[Curve]], label: str) -> Figure:
    """A panel a setting; `label` is the vertical axis's."""
    told = []
    for title, lines in panels.items():
        values = (f"{line.name}: {', '.join(f'{x:g} {y:.4f}' for x, y in line.points)}" for line in lines)
        told.append(f"Against {title}: {'; '.join(values)}.")
    return Figure(
        name=name,
        caption=caption,
        alt=f"{label}. {' '.join(told)}",
        panels=tuple(_draw_curves(title, lines, label) for title, lines in panels.items()),
    )


def _draw_curves(title: str, lines: Sequence[Curve], label: str) -> Callable[[Axes], None]:
    from matplotlib.ticker import FuncFormatter, NullLocator

    def draw(ax: Axes) -> None:
        ends = []
        for i, line in enumerate(lines):
            x, y = [p[0] for p in line.points], [p[1] for p in line.points]
            ax.plot(x, y, color=colour_of(i), linestyle=line_of(i), marker=marker_of(i))
            for place, value in line.points:
                if place == line.chosen:
                    ax.plot(
                        [place],
                        [value],
                        marker="o",
                        markersize=12,
                        color=colour_of(i),
                        fillstyle="none",
                        linestyle="none",
                    )
            ends.append((x[-1], y[-1], line.name, colour_of(i)))
        values = sorted({x for line in lines for x, _ in line.points})
        if values[0] > 0:  # as such settings are chosen, by their ratios
            ax.set_xscale("log")
        ax.margins(x=0.06, y=0.18)
        if len(ends) > 1:
            label_ends(ax, ends)
        ax.set_xticks(values)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.3g}"))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.tick_params(axis="x", labelsize=8, rotation=45 if len(values) > 6 else 0)
        ax.set_xlabel(title)
        ax.set_ylabel(label)
        ax.set_title(f"Against {title}")

    return draw
