"""What a method costs: seconds of training, validation and test, tokens a second, and the search before
it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bearray.report.collect import Run
from bearray.report.figures import COLOURS, HATCHES, Figure, short
from bearray.report.search import Search
from bearray.report.tables import evaluated, groups, labels, ordered

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARTS = ("train", "valid", "test")
PART_WORDS = {"train": "training", "valid": "validation", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Cost:
    label: str
    run: Run
    seconds: Mapping[str, float | None]
    """By train, valid, test."""
    tokens_per_second: float | None
    """Median over the logged steps."""
    trials: int
    search_seconds: float | None
    """All trials of the method's search together; None without a search."""

    @property
    def total(self) -> float:
        return sum(s for s in self.seconds.values() if s is not None)


def build_costs(runs: Iterable[Run], searches: Iterable[Search]) -> dict[tuple[str, str], list[Cost]]:
    """By (data set, base model), in the order of the main table."""
    by_method = {(s.dataset, s.base_model, s.method): s for s in searches}
    costs: dict[tuple[str, str], list[Cost]] = {}
    for key, members in groups(evaluated(runs)).items():
        names = labels(ordered(members))
        for run in ordered(members):
            search = by_method.get((*key, run.method))
            steps = run.steps.get("tokens_per_s")
            speed = float(steps.median()) if steps is not None and steps.notna().any() else None
            costs.setdefault(key, []).append(
                Cost(
                    label=names[run.id],
                    run=run,
                    seconds={p: run.seconds(p) for p in PARTS},
                    tokens_per_second=speed,
                    trials=len(search.trials) if search else 0,
                    search_seconds=search.seconds if search else None,
                )
            )
    return costs


def cost_figure(name: str, where: str, costs: Sequence[Cost]) -> Figure:
    """Stacked bars of train, validation and test seconds, one a method."""
    told = "; ".join(f"{c.label} {c.total:.0f} s" for c in costs)
    return Figure(
        name=name,
        caption=f"Wall-clock seconds of one run of each method on {where}; the search is not in the bars.",
        alt=f"Bar chart of seconds for {where}: {told}.",
        panels=(_bars(costs),),
    )


def _bars(costs: Sequence[Cost]) -> Callable[[Axes], None]:
    def panel(ax: Axes) -> None:
        heights = range(len(costs) - 1, -1, -1)
        left = [0.0] * len(costs)
        for i, part in enumerate(PARTS):
            widths = [c.seconds[part] or 0.0 for c in costs]
            ax.barh(
                heights,
                widths,
                left=left,
                height=0.55,
                color="none",
                edgecolor=COLOURS[i],
                hatch=HATCHES[(i + 1) % len(PARTS)],
                label=PART_WORDS[part],
                linewidth=1.2,
            )
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for y, total in zip(heights, left, strict=True):
            ax.annotate(
                f"{total:,.0f} s",
                xy=(total, y),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        ax.set_yticks(list(heights), [short(c.label) for c in costs])
        ax.tick_params(axis="y", length=0, labelcolor="#1c2024")
        ax.set_ylim(-0.6, len(costs) - 0.4)
        ax.margins(x=0.16)
        ax.grid(visible=False, axis="y")
        ax.set_xlabel("seconds")
        ax.set_title("Time of one run")
        ax.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.2),
            ncols=3,
            frameon=False,
            fontsize=9,
            labelcolor="#1c2024",
        )

    return panel
