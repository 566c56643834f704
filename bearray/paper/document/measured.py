"""What was measured of tested runs beside accuracy: what beam search prunes, and what training costs."""

from __future__ import annotations

from dataclasses import dataclass

from bearray.method_names import method_name
from bearray.paper.document.methods import MAIN, Method, binomial_interval
from bearray.paper.document.read import Material
from bearray.paper.parts import Part
from bearray.report.cells import Part as Population
from bearray.report.cells import Table
from bearray.report.efficiency import Efficiency, Point, read_efficiency
from bearray.report.efficiency import Row as Timed
from bearray.report.pruning import Estimate, PruningRow, Rate, Share, build_pruning

UNMEASURED = "tested, prunings not measured"
UNTIMED = "not timed"


def pruning_of(method: Method) -> PruningRow | None:
    """What beam search prunes of a method, by its first seed that was measured: on test, with the softmax
    over valid tokens where there are several."""
    for run in method.tested:
        tables = build_pruning([run])
        if tables:
            return tables[0].rows[0]
    return None


def rate_at(row: PruningRow | None, k: int) -> Rate | None:
    """PR@k of a row."""
    return next((rate for rate in row.rates if rate.k == k), None) if row else None


def sure(share: Share) -> Estimate:
    """A share with the wider of two 95% intervals: over users, and Wilson's, since where all users agree the
    former has no width."""
    value = share.count / share.of
    low, high = binomial_interval(value, share.of)
    if share.share is not None:
        low, high = min(low, share.share.low), max(high, share.share.high)
    return Estimate(value, low, high)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One timed method of a part."""

    method: str
    timed: Timed
    point: Point | None
    """Beside its accuracy; None where it was not tested with the settings that were timed."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The benchmark of a part."""

    found: Efficiency
    methods: tuple[Cost, ...]

    def of(self, method: str) -> Cost | None:
        return next((cost for cost in self.methods if cost.method == method), None)


def costs_of(material: Material, part: Part) -> Costs | None:
    """The benchmark of a part's objectives; None where nothing was timed.

    Raises:
        DataError: efficiency.json is damaged.
    """
    decoding = str(material.config.run.decoding.normalize)
    rows = []
    for name in material.objectives(part):
        scores = material.method(part, name).scores
        found = scores.get(decoding) or scores.get(MAIN)
        if found is not None:
            rows.append(found.row(method_name(name)))
    tables = []
    if rows:
        run = rows[0].run
        population = Population(population="all", rows=tuple(rows), tests=0)
        tables.append(
            Table(
                dataset=run.dataset,
                base_model=run.base_model,
                normalize=decoding,
                parts=(population,),
                notes=(),
            )
        )
    efficiency = read_efficiency(material.root / part.folder, tables)
    if efficiency is None:
        return None
    points = {point.objective: point for point in efficiency.points}
    methods = tuple(
        Cost(method=timed.label.lower().partition(":")[0], timed=timed, point=points.get(timed.label))
        for timed in efficiency.training
    )
    return Costs(found=efficiency, methods=methods)
