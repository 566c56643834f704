"""The results as a figure: NDCG@10 of each method with its interval, for all, warm and cold targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bearray.report.cells import NORMALIZER_WORDS, POPULATION_WORDS, Part, Table
from bearray.report.figures import Figure, colour_of, marker_of, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def results_figure(name: str, where: str, table: Table) -> Figure:
    """One panel a population; a row a method: the mean, and its 95% interval as a bar."""
    told = []
    for part in table.parts:
        cells = ((row.label, row.cells["ndcg@10"]) for row in part.rows)
        values = "; ".join(f"{label} {c.mean:.4f} ({c.low:.4f} to {c.high:.4f})" for label, c in cells)
        told.append(f"{POPULATION_WORDS[part.population]}: {values}.")
    return Figure(
        name=name,
        caption=(
            f"NDCG@10 on the test cases of {where}: {NORMALIZER_WORDS[table.normalize]}. "
            "Bars are 95% intervals over users. Intervals that overlap do not mean that methods do not "
            "differ: see the paired tests."
        ),
        alt=f"NDCG@10 with 95% intervals for {where}. {' '.join(told)}",
        panels=tuple(_panel(part) for part in table.parts),
        series=max(len(part.rows) for part in table.parts),
    )


def _panel(part: Part) -> Callable[[Axes], None]:
    def draw(ax: Axes) -> None:
        for i, row in enumerate(part.rows):
            cell, y = row.cells["ndcg@10"], len(part.rows) - 1 - i
            colour = colour_of(i)
            ax.plot([cell.low, cell.high], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
            for end in (cell.low, cell.high):
                ax.plot([end, end], [y - 0.09, y + 0.09], color=colour, linewidth=1.4)
            ax.plot([cell.mean], [y], marker=marker_of(i), color=colour, markersize=7)
            ax.annotate(
                f"{cell.mean:.4f}",
                xy=(cell.mean, y),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=8.5,
                color=colour,
            )
        ax.set_yticks(range(len(part.rows)), [short(r.label) for r in reversed(part.rows)])
        ax.tick_params(axis="y", length=0, labelcolor="#1c2024")
        ax.set_ylim(-0.6, len(part.rows) - 0.35)
        ax.grid(visible=False, axis="y")
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("NDCG@10")
        ax.locator_params(axis="x", nbins=5)
        ax.set_title({"all": "All", "warm": "Warm targets", "cold": "Cold targets"}[part.population])

    return draw
