"""Training curves: loss, answer NLL and validation NDCG@10; violations of condition (3.2) and the pruning
margin."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bearray.report.figures import Figure, colour_of, label_ends, line_of, marker_of, nothing, plain
from bearray.report.records import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 30
"""Points a line at most: neighbouring steps are averaged, since single batches are noisy."""


def training_figure(name: str, where: str, runs: Sequence[Run], names: Mapping[str, str]) -> Figure:
    """Loss and NLL over epochs, and validation NDCG@10 after each epoch, one line a method."""
    return Figure(
        name=name,
        caption=(
            f"Training on {where}. Loss: what each objective minimises; losses of different objectives are "
            "not on one scale. Answer NLL: negative log-likelihood of an answer token. Validation NDCG@10: "
            "after each epoch; the checkpoint with the highest value is the one that was tested."
        ),
        alt=f"Three line charts for {where}. {_describe(runs, names)}",
        panels=(
            _over_steps(runs, names, "loss", "Loss", "loss per answer token"),
            _over_steps(runs, names, "nll", "Answer NLL", "nats per answer token"),
            _over_epochs(runs, names),
        ),
        series=len(runs),
    )


def violation_figure(name: str, where: str, runs: Sequence[Run], names: Mapping[str, str]) -> Figure:
    """Share of branching tokens that violate (3.2), and the mean margin, over epochs, one line a method."""
    return Figure(
        name=name,
        caption=(
            f"Beam pruning in training on {where}. Violations: share of answer tokens with a choice whose "
            "right token is not among the top B, so that beam search would cut it (condition (3.2) of the "
            "paper). Margin: mean of log(B-th largest probability) minus log(probability of the right "
            "token); below 0 the right token survives. Both on training batches, not on test cases."
        ),
        alt=f"Two line charts for {where}. {_describe_violations(runs, names)}",
        panels=(
            _over_steps(runs, names, "violation", "Violations of (3.2)", "share of branching tokens"),
            _over_steps(runs, names, "margin", "Pruning margin", "nats"),
        ),
        series=len(runs),
    )


def binned(steps: pd.DataFrame, column: str, bins: int = BINS) -> tuple[np.ndarray, np.ndarray]:
    """Epoch and value of a step column, means over at most `bins` stretches of equally many logged steps."""
    if column not in steps or "epoch" not in steps:
        return np.empty(0), np.empty(0)
    kept = steps[["epoch", column]].dropna()
    parts = [p for p in np.array_split(np.arange(len(kept)), min(bins, max(len(kept), 1))) if len(p)]
    values = kept.to_numpy(dtype=float)
    means = np.array([values[p].mean(axis=0) for p in parts]).reshape(-1, 2)
    return means[:, 0], means[:, 1]


def _over_steps(
    runs: Sequence[Run], names: Mapping[str, str], column: str, title: str, unit: str
) -> Callable[[Axes], None]:
    lines = [(names[r.id], *binned(r.steps, column)) for r in runs]
    return _lines(lines, title, unit, f"No run logged {column}.", every=5)


def _over_epochs(runs: Sequence[Run], names: Mapping[str, str]) -> Callable[[Axes], None]:
    lines = []
    for r in runs:
        if "valid_ndcg@10" in r.epochs:
            kept = r.epochs[["epoch", "valid_ndcg@10"]].dropna().to_numpy(dtype=float)
            lines.append((names[r.id], kept[:, 0], kept[:, 1]))
        else:
            lines.append((names[r.id], np.empty(0), np.empty(0)))
    return _lines(lines, "Validation NDCG@10", "NDCG@10", "No run was validated.", every=1)


def _lines(
    lines: Sequence[tuple[str, np.ndarray, np.ndarray]], title: str, unit: str, empty: str, every: int
) -> Callable[[Axes], None]:
    def panel(ax: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        ax.set_title(title)
        if not any(len(x) for _, x, _ in lines):
            nothing(ax, empty)
            return
        ends = []
        for i, (name, x, y) in enumerate(lines):
            if not len(x):
                continue
            colour = colour_of(i)
            ax.plot(
                x,
                y,
                color=colour,
                linestyle=line_of(i),
                marker=marker_of(i),
                markevery=(i % every, every) if len(x) > every else 1,
                label=plain(name),
            )
            ends.append((float(x[-1]), float(y[-1]), name, colour))
        last = max(e[0] for e in ends)
        label_ends(ax, ends)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.set_xticks([t for t in ax.get_xticks() if ax.get_xlim()[0] <= t <= math.ceil(last)])
        ax.set_xlabel("epoch")
        ax.set_ylabel(unit)

    return panel


def _describe(runs: Sequence[Run], names: Mapping[str, str]) -> str:
    parts = []
    for r in runs:
        _, nll = binned(r.steps, "nll")
        best = r.valid("ndcg@10")
        change = f"NLL from {nll[0]:.3f} to {nll[-1]:.3f}" if len(nll) else "no NLL logged"
        valid = f"best validation NDCG@10 {best:.4f}" if best is not None else "never validated"
        parts.append(f"{names[r.id]}: {change}, {valid}.")
    return " ".join(parts)


def _describe_violations(runs: Sequence[Run], names: Mapping[str, str]) -> str:
    parts = []
    for r in runs:
        _, share = binned(r.steps, "violation")
        if len(share):
            parts.append(f"{names[r.id]}: violations from {share[0]:.1%} to {share[-1]:.1%}.")
        else:
            parts.append(f"{names[r.id]}: violations were not logged.")
    return " ".join(parts)
