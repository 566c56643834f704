"""Figures 3, 4 and 6: what beam search prunes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bearray.method_names import NAMES
from bearray.paper.document.figures import Panel, Value, bars
from bearray.paper.document.measured import UNMEASURED, pruning_of, rate_at, sure
from bearray.paper.document.plate import Plate, mains
from bearray.paper.document.read import Material
from bearray.paper.parts import COMPARED
from bearray.report.pruning import PruningRow, Share
from bearray.report.published import published
from bearray.report.records import Run


def _measured(
    material: Material, methods: Sequence[str]
) -> tuple[dict[tuple[str, str], PruningRow], list[str], list[Run]]:
    """Analyses by (data set, method), what is missing, and the runs."""
    found, missing, runs = {}, [], []
    for part in mains(material.config):
        for name in methods:
            method = material.method(part, name)
            row = pruning_of(method)
            if row is None:
                why = UNMEASURED if method.tested else method.state
                missing.append(f"{part.data_name} {NAMES[name]}: {why}")
            else:
                found[part.data_name, name] = row
                runs += [run for run in method.tested if run.id == row.run]
    return found, missing, runs


_LINES = "Thin lines are 95% intervals, the wider of that over users and Wilson's."


def _value(share: Share | None) -> Value | None:
    if share is None or not share.of:
        return None
    found = sure(share)
    return Value(value=found.value, low=found.low, high=found.high)


def _numbers(share: Share) -> tuple[Any, ...]:
    found = _value(share)
    ends = (found.value, found.low, found.high) if found else (None,) * 3
    return (*ends, share.count, share.of)


def _some(series: Mapping[str, Mapping[str, Value | None]]) -> dict[str, dict[str, Value]]:
    """Without values that are not there, and series that have none."""
    kept = {name: {g: v for g, v in values.items() if v is not None} for name, values in series.items()}
    return {name: values for name, values in kept.items() if values}


def _pruning_notes(rows: Mapping[tuple[str, str], PruningRow]) -> tuple[str, ...]:
    notes = []
    for (dataset, method), row in rows.items():
        told = f"{dataset}, {NAMES[method]}: {row.n} of {row.settings.get('of', row.n)} test cases measured"
        told += f", decoded with {row.settings.get('normalize')}"
        unknown = max((rate.unknown for rate in row.rates), default=0)
        if unknown:
            told += f"; up to {unknown} of them left out of the exact rates, since their rank is not proven"
        notes.append(f"{told}.")
    return tuple(notes)


def figure_3(material: Material) -> Plate:
    found, missing, runs = _measured(material, ("sft",))
    stated = published()["text"]["pruned_share"]
    rows, panels = [], []
    for k in (5, 10):
        series: dict[str, dict[str, Value | None]] = {"exact": {}, "pool": {}}
        for (dataset, _), row in found.items():
            rate = rate_at(row, k)
            for counting in series if rate else ():
                share: Share = getattr(rate, counting)
                series[counting][dataset] = _value(share)
                paper = stated.get(dataset.casefold()) if k == 10 else None
                unknown = rate.unknown if rate and counting == "exact" else None
                rows.append((dataset, k, counting, *_numbers(share), unknown, paper))
        if some := _some(series):
            paper = {d: stated[d.casefold()] for d, _ in found if d.casefold() in stated} if k == 10 else {}
            panels.append(Panel(title=f"PR@{k}", label=f"PR@{k}, SFT", series=some, paper=paper))
    caption = (
        "Share of the targets that deserve a place among the K most probable titles and that beam search "
        f"prunes; SFT. {_LINES} The paper gives two numbers in its text, for "
        "targets of the top B = 10, without saying among which candidates they rank."
    )
    return Plate(
        number=3,
        header=("data set", "K", "counting", "PR@K", "low", "high", "pruned", "of", "unknown", "paper"),
        rows=tuple(rows),
        figures=(bars("figure3", caption, panels),) if panels else (),
        missing=tuple(missing),
        notes=_pruning_notes(found),
        runs=tuple(runs),
    )


def figure_4(material: Material) -> Plate:
    found, missing, runs = _measured(material, ("sft",))
    stated = float(published()["text"]["violating_more_than"])
    series: dict[str, dict[str, Value | None]] = {"anywhere": {}, "at the cut": {}}
    rows = []
    for (dataset, _), row in found.items():
        for where, share in (("anywhere", row.any_violation), ("at the cut", row.at_cut)):
            series[where][dataset] = _value(share)
            rows.append((dataset, where, *_numbers(share), stated))
        if row.any_violation.share is None:
            missing.append(f"{dataset} SFT: nothing was pruned")
    caption = (
        "Of the targets that beam search prunes although they are among the B most probable titles: share "
        "that violates condition (3.2), with a token outside the B most probable ones of its step, anywhere "
        "or at the very step of the cut; SFT. The paper says: more than 70% in every setting."
    )
    some = _some(series)
    panel = Panel(title="Violating (3.2)", label="share of prunings", series=some, threshold=stated)
    return Plate(
        number=4,
        header=("data set", "violated", "share", "low", "high", "violating", "pruned", "paper: more than"),
        rows=tuple(rows),
        figures=(bars("figure4", caption, [panel]),) if some else (),
        missing=tuple(missing),
        notes=_pruning_notes(found),
        runs=tuple(runs),
    )


def figure_6(material: Material) -> Plate:
    found, missing, runs = _measured(material, COMPARED)
    rows = []
    panels = []
    for counting in ("exact", "pool"):
        series: dict[str, dict[str, Value | None]] = {NAMES[m]: {} for m in COMPARED}
        for (dataset, method), row in found.items():
            if rate := rate_at(row, 10):
                share: Share = getattr(rate, counting)
                series[NAMES[method]][dataset] = _value(share)
                rows.append((dataset, NAMES[method], counting, *_numbers(share)))
        if some := _some(series):
            panels.append(Panel(title=f"PR@10, {counting}", label="PR@10", series=some))
    caption = (
        "Share of the targets that deserve a place among the 10 most probable titles and that beam search "
        "prunes, by objective. Exact: rank among all titles; pool: among those that beam search found. "
        f"{_LINES} The paper's bars have no numbers; its text has a mean change of "
        "-24.86% by BEAR."
    )
    return Plate(
        number=6,
        header=("data set", "method", "counting", "PR@10", "low", "high", "pruned", "of"),
        rows=tuple(rows),
        figures=(bars("figure6", caption, panels),) if panels else (),
        missing=tuple(missing),
        notes=_pruning_notes(found),
        runs=tuple(runs),
    )
