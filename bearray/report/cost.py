"""What a method costs: seconds of training, validation and test, tokens a second, and the search before
it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bearray.method_names import method_name
from bearray.report.figures import COLOURS, HATCHES, INK, Figure, legend_below, short
from bearray.report.records import DECODINGS, Run
from bearray.report.rows import evaluated, groups, labels, ordered, replicates
from bearray.report.search import Search

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARTS = ("train", "valid", "test")
PART_WORDS = {"train": "training", "valid": "validation", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Cost:
    label: str
    runs: tuple[Run, ...]
    """One a seed."""
    seconds: Mapping[str, float | None]
    """By train, valid, test; means over the seeds."""
    decoding: Mapping[str, float]
    """By decoding: milliseconds of an actor for a test case, the mean over the seeds."""
    tokens_per_second: float | None
    """Median over the logged steps."""
    trials: int
    search_seconds: float | None
    """All trials of the method's search together; None without a search."""
    started_from: str | None = None
    """The method whose adapter it started from, whose training is not in its times."""

    @property
    def run(self) -> Run:
        """The run with the first seed."""
        return self.runs[0]

    @property
    def total(self) -> float:
        return sum(s for s in self.seconds.values() if s is not None)


def build_costs(runs: Iterable[Run], searches: Iterable[Search]) -> dict[tuple[str, str], list[Cost]]:
    """By (data set, base model), in the order of the main table."""
    by_method = {(s.dataset, s.base_model, s.method): s for s in searches}
    costs: dict[tuple[str, str], list[Cost]] = {}
    for key, members in groups(evaluated(runs)).items():
        rows = replicates(ordered(members))
        names = labels([group[0] for group in rows])
        for group in rows:
            first = group[0]
            search = by_method.get((*key, first.method))
            speeds = [s for run in group if (s := _speed(run)) is not None]
            costs.setdefault(key, []).append(
                Cost(
                    label=names[first.id],
                    runs=tuple(group),
                    seconds={p: _mean([run.seconds(p) for run in group]) for p in PARTS},
                    decoding=_decoding(group),
                    tokens_per_second=_mean(speeds),
                    trials=len(search.trials) if search else 0,
                    search_seconds=search.seconds if search else None,
                    started_from=first.started_from
                    and method_name(first.started_from.rpartition("-")[0].upper()),
                )
            )
    return costs


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _speed(run: Run) -> float | None:
    steps = run.steps.get("tokens_per_s")
    return float(steps.median()) if steps is not None and steps.notna().any() else None


def _decoding(runs: Sequence[Run]) -> dict[str, float]:
    found = {}
    for name in DECODINGS:
        each = [
            1000 * seconds / len(run.predictions[name])
            for run in runs
            if name in run.predictions and (seconds := run.decoding_seconds(name)) is not None
        ]
        if each:
            found[name] = sum(each) / len(each)
    return found


def cost_figure(name: str, where: str, costs: Sequence[Cost]) -> Figure:
    """Stacked bars of train, validation and test seconds, one a method."""
    told = "; ".join(f"{c.label} {c.total:.0f} s" for c in costs)
    return Figure(
        name=name,
        caption=f"Wall-clock seconds of one run of each method on {where}; the search is not in the bars.",
        alt=f"Bar chart of seconds for {where}: {told}.",
        panels=(_bars(costs),),
        series=len(costs),
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
        ax.tick_params(axis="y", length=0, labelcolor=INK)
        ax.set_ylim(-0.6, len(costs) - 0.4)
        ax.margins(x=0.16)
        ax.grid(visible=False, axis="y")
        ax.set_xlabel("seconds")
        ax.set_title("Time of one run")
        legend_below(ax)

    return panel
