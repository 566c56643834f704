"""Figures 5 and 9: time per epoch against NDCG@10."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from bearray.method_names import NAMES, method_name
from bearray.paper.document.measured import UNTIMED, Costs, costs_of
from bearray.paper.document.methods import MAIN
from bearray.paper.document.plate import Plate, mains
from bearray.paper.document.read import Material
from bearray.paper.parts import Part, needs_of, sample_parts
from bearray.report.efficiency_figures import efficiency_figures
from bearray.report.figures import Figure


def figure_5(material: Material) -> Plate:
    return _cost_plate(material, 5, sample_parts(material.config))


def figure_9(material: Material) -> Plate:
    return _cost_plate(material, 9, mains(material.config))


def _cost_plate(material: Material, number: int, parts: Sequence[Part]) -> Plate:
    rows, missing, notes, runs = [], [], [], []
    figures: list[Figure] = []
    wanted = needs_of(material.config, "figure", number).timing
    for part in parts:
        costs = costs_of(material, part)
        if costs is None or not costs.methods:
            missing.append(f"{part.data_name}: {UNTIMED}")
            continue
        order = {name: place for place, name in enumerate(NAMES)}
        for cost in sorted(costs.methods, key=lambda c: order.get(c.method, 99)):
            epoch, ratio, point = cost.timed.epoch_seconds, cost.timed.ratio, cost.point
            times = (epoch.value, epoch.low, epoch.high) if epoch else (None,) * 3
            against = (ratio.value, ratio.low, ratio.high) if ratio else (None,) * 3
            quality = (point.ndcg, point.low, point.high) if point else (None,) * 3
            rows.append((part.data_name, method_name(cost.method), *times, *against, *quality))
            if point is None:
                why = material.method(part, cost.method).lacks(MAIN)
                why = "timed with other settings than it was trained with" if "decoded" in why else why
                missing.append(f"{part.data_name} {method_name(cost.method)}: NDCG@10: {why}")
        timed = {cost.method for cost in costs.methods}
        lacking = sorted(set(wanted.get(part, ())) - timed)
        missing += [f"{part.data_name} {method_name(name)}: {UNTIMED}" for name in lacking]
        figures.append(_cost_figure(costs, number, len(figures) + 1, part))
        notes += [f"{part.data_name}: {line}" for line in (*costs.found.facts, *costs.found.notes)]
        runs += [run for c in costs.methods for run in material.method(part, c.method).tested[:1]]
    header = (
        "data set,method,s per epoch,s low,s high,times SFT,times low,times high,NDCG@10,NDCG low,NDCG high"
    )
    return Plate(
        number=number,
        header=tuple(header.split(",")),
        rows=tuple(rows),
        figures=tuple(figures),
        missing=tuple(missing),
        notes=tuple(notes),
        runs=tuple(runs),
    )


def _cost_figure(costs: Costs, number: int, place: int, part: Part) -> Figure:
    """Time per epoch against NDCG@10, or the times alone where nothing was tested."""
    figure = efficiency_figures(costs.found)[0]
    name = f"figure{number}" if place == 1 else f"figure{number}-{place}"
    caption = re.sub(r"; the paper's Figures 5 and 9", "", figure.caption)
    return replace(figure, name=name, caption=f"{part.data_name}. {caption}")
