"""Runs beside the cost of their objectives: which timed objective does the work of a run, and in what its own
epochs may have taken other times."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bearray.config import ObjectiveConfig, from_dict, to_dict
from bearray.efficiency.statistics import Interval, Row
from bearray.efficiency.variants import DROPOUT
from bearray.objectives.base import Objective
from bearray.objectives.registry import OBJECTIVES, fields_used
from bearray.report.cells import Table
from bearray.report.headline import primary

METRIC = "ndcg@10"
_SAME_TIME = (
    "lam", "xi", "tau", "mix", "contrast", "beta", "smoothing", "kl_weight", "theta", "prior_weight",
    "last_weight", "power", "uninformative_weight",
)  # fmt: skip
"""Numbers of an objective whose size does not change what is computed, so a run with others is the same in
cost; `_switches` has those among them that turn something on or off."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A run of the storage, and what an epoch of its objective costs."""

    label: str
    objective: str
    """The label of the objective that was timed."""
    epoch_seconds: Interval
    ndcg: float
    low: float
    high: float


def points_of(
    content: Mapping[str, Any], rows: Sequence[Row], tables: Sequence[Table]
) -> tuple[list[Point], list[str]]:
    """The runs whose objective was timed, and a note where their own epochs may have taken other times.

    Args:
        content: of efficiency.json. rows: the objectives in it.
        tables: of the runs of the same storage.
    """
    name = content["base_model"]
    mine = [
        t
        for t in tables
        if t.dataset == content["dataset"]
        and t.base_model.rstrip("/").rpartition("/")[2] == name
        and t.parts
        and all(r.run.data_hash == content["data_hash"] for r in t.parts[0].rows)
    ]
    if not mine or not rows:
        return [], []
    part = primary(mine).part("all")
    seconds = {row.label: row.epoch_seconds for row in rows}
    points: list[Point] = []
    differing: set[str] = set()
    for row in part.rows if part else ():
        label, others = _timed(row.run.settings, content)
        epoch = seconds[label] if label else None
        if label is None or epoch is None:
            continue
        cell = row.cells[METRIC]
        points.append(
            Point(
                label=row.label,
                objective=label,
                epoch_seconds=epoch,
                ndcg=cell.mean,
                low=cell.low,
                high=cell.high,
            )
        )
        differing |= others
    if not differing:
        return points, []
    return points, [
        "The runs in the figure of NDCG@10 were trained with other settings than were timed here: "
        f"{', '.join(sorted(differing))}. Their own epochs may have taken other times."
    ]


def _timed(run: Mapping[str, Any], content: Mapping[str, Any]) -> tuple[str | None, set[str]]:
    """The timed objective that computes the same as a run's, of several the one in the most similar adapter,
    and the settings in which it was timed otherwise; None where there is none."""
    own = _work(run.get("objective", {}))
    same = {
        label: _differing(run, content["settings"]["run"], contender)
        for label, contender in content["training"]["contenders"].items()
        if _work(contender) == own
    }
    return min(same.items(), key=lambda item: len(item[1]), default=(None, set()))


def _work(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What of an objective's settings decides what is computed in a step."""
    default = to_dict(ObjectiveConfig())
    full = {name: settings.get(name, value) for name, value in default.items()}
    used = fields_used(from_dict(ObjectiveConfig, full))
    return {name: full[name] for name in used - set(_SAME_TIME)} | _switches(full, used)


def _switches(full: Mapping[str, Any], used: Collection[str]) -> dict[str, bool]:
    """Of the numbers whose size costs nothing: what they turn on."""
    on = {
        "smoothing": full["smoothing"] is None,  # scores of SASRec for all titles in each step
        "mix": full["mix"] != 0,  # a second margin
    }
    return {f"{name} on": value for name, value in on.items() if name in used}


_MATTERS = (
    ("data", "train_windows"),
    ("model", "backbone"),
    ("model", "dtype"),
    ("model", "lora_r"),
    ("model", "lora_dropout"),  # without it, objective (3.1) takes its prompts from the training pass
    ("model", "lora_targets"),
    ("model", "max_prompt_tokens"),
    ("train", "batch_size"),
    ("train", "micro_batch_size"),
    ("train", "num_workers"),
    ("train", "precision"),
    ("train", "gradient_checkpointing"),
)
"""Settings of a run that decide how long its epoch takes."""
_OF_TURNS = ("train", "epochs")
"""Another one where an objective has epochs of several losses, whose shares it decides."""


def _differing(run: Mapping[str, Any], timed: Mapping[str, Any], contender: Mapping[str, Any]) -> set[str]:
    """Settings that decide how long an epoch takes and that a run has otherwise than its contender had, which
    is as all were timed but for its own LoRA dropout (earlier benchmarks had one for all)."""
    own = {name: contender[name] for name in (DROPOUT,) if name in contender}
    had = {**timed, "model": {**timed["model"], **own}}
    takes_turns = OBJECTIVES[contender["name"]].schedule is not Objective.schedule
    return {
        f"{group}.{name}"
        for group, name in (*_MATTERS, *([_OF_TURNS] if takes_turns else []))
        if name in run.get(group, {}) and run[group][name] != had[group].get(name)
    }
