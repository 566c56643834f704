"""The search: every trial's settings against its validation NDCG@10, as in the paper's Figure 8."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bearray.method_names import method_name
from bearray.report.figures import COLOURS, LINES, MUTED, Figure, legend_below, nothing, short, spread
from bearray.report.records import Run
from bearray.report.rows import evaluated, first_of_each, groups, ordered, varying

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SYMBOLS = {
    "objective.lam": "lambda",
    "objective.xi": "xi",
    "objective.tau": "tau",
    "train.lr": "learning rate",
}
_GREEK = {"lambda": "λ", "xi": "ξ", "tau": "τ"}


@dataclass(frozen=True, kw_only=True)
class Trial:
    run: Run
    settings: Mapping[str, Any]
    """The settings that were searched, by dotted name."""
    ndcg: float | None
    """Validation NDCG@10 of its best epoch; None for a trial that was never validated."""
    chosen: bool

    @property
    def valued(self) -> bool:
        """Whether its validation result is final: it finished and was validated."""
        return self.ndcg is not None and self.run.status == "finished"


@dataclass(frozen=True, kw_only=True)
class Search:
    """All trials of one method on one data set and base model: finished ones by validation, then the
    others."""

    dataset: str
    base_model: str
    method: str
    axes: tuple[str, ...]
    """Dotted names of the searched settings; lambda and xi first."""
    trials: tuple[Trial, ...]
    seconds: float
    """Training, validation and test seconds of all its trials together."""

    @property
    def name(self) -> str:
        """What the method is called."""
        return method_name(self.method)

    @property
    def best(self) -> Trial | None:
        """The chosen trial; where none is marked, the finished one with the highest validation NDCG@10."""
        done = [t for t in self.trials if t.valued]
        return next((t for t in done if t.chosen), done[0] if done else None)


def axis_words(name: str) -> str:
    """A setting's name for readers: objective.lam -> lambda."""
    return SYMBOLS.get(name, name)


def build_searches(runs: Iterable[Run]) -> list[Search]:
    """The searches among `runs`: those of role trial, by data set, base model and method."""
    found = []
    for (dataset, base_model), members in groups(r for r in runs if r.role == "trial").items():
        for method in sorted({r.method for r in members}):
            trials = [r for r in members if r.method == method]
            found.append(_search(dataset, base_model, method, trials))
    return found


def _search(dataset: str, base_model: str, method: str, runs: list[Run]) -> Search:
    first = [a for a in ("objective.lam", "objective.xi") if any(_get(r, a) is not None for r in runs)]
    differ = varying(runs) if len(runs) > 1 else first
    axes = [a for a in first if a in differ] + [a for a in differ if a not in first]
    trials = [
        Trial(run=r, settings={a: _get(r, a) for a in axes}, ndcg=r.valid("ndcg@10"), chosen=r.chosen)
        for r in runs
    ]
    trials.sort(key=lambda t: (not t.valued, -(t.ndcg or 0.0), t.run.id))
    seconds = sum(r.seconds(part) or 0.0 for r in runs for part in ("train", "valid", "test"))
    return Search(
        dataset=dataset,
        base_model=base_model,
        method=method,
        axes=tuple(axes),
        trials=tuple(trials),
        seconds=seconds,
    )


def _get(run: Run, name: str) -> Any:
    node: Any = run.settings
    for part in name.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def search_figure(name: str, search: Search, runs: Iterable[Run]) -> Figure | None:
    """Each searched number against validation NDCG@10, then both against each other; None without a
    number."""
    numeric = [a for a in search.axes if all(_is_number(t.settings[a]) for t in search.trials)][:2]
    if not numeric:
        return None
    others = [
        (method_name(r.method), value)
        for r in first_of_each(ordered(evaluated(runs)))
        if (r.dataset, r.base_model, r.role) == (search.dataset, search.base_model, "method")
        and r.method != search.method
        and (value := r.valid("ndcg@10")) is not None
    ]
    panels = [_against_ndcg(search, axis, others) for axis in numeric]
    if len(numeric) == 2:
        panels.append(_both(search, *numeric))
    best = search.best
    both = ""
    if len(numeric) == 2:
        both = " In the last chart, a larger and stronger mark is a higher validation NDCG@10, and its shape "
        both += "is its quarter of the trials."
    without = len(search.trials) - len(_valued(search))
    left_out = f" Not drawn: {without} that failed or did not finish." if without else ""
    told = "No trial has finished with a validation result."
    if best is not None and best.ndcg is not None:
        at = ", ".join(f"{axis_words(a)} {best.settings[a]:.4g}" for a in numeric)
        told = f"{len(search.trials)} trials; the chosen one has {at} and validation NDCG@10 {best.ndcg:.4f}."
    return Figure(
        name=name,
        caption=(
            f"The search for {search.name} on {search.dataset} with {search.base_model}: a point a "
            "trial, the star the chosen one, dashed lines the methods that were not searched (compare "
            f"Figure 8 of the paper).{both}{left_out}"
        ),
        alt=f"Scatter charts of the search for {search.name}. {told}",
        panels=tuple(panels),
        series=len(others),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _valued(search: Search) -> list[Trial]:
    return [t for t in search.trials if t.valued]


def _title(axis: str) -> str:
    word = axis_words(axis)
    return f"{word} ({_GREEK[word]})" if word in _GREEK else word


def _against_ndcg(search: Search, axis: str, others: Sequence[tuple[str, float]]) -> Callable[[Axes], None]:
    def panel(ax: Axes) -> None:
        ax.set_title(f"Validation NDCG@10 against {axis_words(axis)}")
        trials = _valued(search)
        if not trials:
            nothing(ax, "No trial has finished with a validation result.")
            return
        plain = [t for t in trials if t is not search.best]
        ax.plot(
            [t.settings[axis] for t in plain],
            [t.ndcg or 0.0 for t in plain],
            "o",
            color=COLOURS[0],
            alpha=0.85,
        )
        best = search.best
        if best is not None and best.ndcg is not None:
            x = best.settings[axis]
            ax.plot([x], [best.ndcg], "*", color=COLOURS[1], markersize=14)
            ax.annotate(
                f"chosen: {x:.3g}",
                xy=(x, best.ndcg),
                xytext=(0, 9),
                textcoords="offset points",
                ha="center",
                color=COLOURS[1],
                fontsize=9,
            )
        ax.margins(x=0.1, y=0.18)
        for i, (_, value) in enumerate(others):
            ax.axhline(value, color=MUTED, linestyle=LINES[1 + i % (len(LINES) - 1)], linewidth=1.2)
        ax.autoscale_view()
        for (name, _), y in zip(others, spread([v for _, v in others], ax), strict=True):
            ax.annotate(
                short(name),
                xy=(1, y),
                xycoords=("axes fraction", "data"),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                color=MUTED,
                fontsize=8.5,
                annotation_clip=False,
            )
        ax.set_xlabel(_title(axis))
        ax.set_ylabel("validation NDCG@10")

    return panel


_QUARTERS = ("v", "s", "D", "o")


def _both(search: Search, x: str, y: str) -> Callable[[Axes], None]:
    def panel(ax: Axes) -> None:
        ax.set_title(f"{axis_words(x)} and {axis_words(y)}".capitalize())
        trials = _valued(search)
        if not trials:
            nothing(ax, "No trial has finished with a validation result.")
            return
        values = np.array([t.ndcg for t in trials], dtype=float)
        place = np.argsort(np.argsort(values, kind="stable"), kind="stable")
        quarter = (place * 4) // len(values)
        span = float(np.ptp(values)) or 1.0
        level = (values - values.min()) / span
        for q in range(4):
            here = np.flatnonzero(quarter == q)
            if len(here):
                ax.scatter(
                    [trials[i].settings[x] for i in here],
                    [trials[i].settings[y] for i in here],
                    c=COLOURS[0],
                    alpha=0.4 + 0.6 * level[here],
                    s=26 + 64 * level[here],
                    marker=_QUARTERS[q],
                    label=f"{values[here].min():.4f}–{values[here].max():.4f}",
                    edgecolors=MUTED,
                    linewidths=0.6,
                )
        best = search.best
        if best is not None and best.ndcg is not None:
            ax.plot(
                [best.settings[x]], [best.settings[y]], "*", color=COLOURS[1], markersize=15, label="chosen"
            )
        ax.margins(0.12)
        ax.set_xlabel(_title(x))
        ax.set_ylabel(_title(y))
        legend_below(ax, columns=2, fontsize=8)

    return panel
