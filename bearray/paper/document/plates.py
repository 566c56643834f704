"""The figures by number: how each is built; and those of S-DPO (7) and of lambda and xi (8)."""

from __future__ import annotations

from collections.abc import Sequence

from bearray.method_names import NAMES
from bearray.paper.document.cost_plates import figure_5, figure_9
from bearray.paper.document.figures import Curve, Panel, Value, bars, curves
from bearray.paper.document.methods import NOT_RUN
from bearray.paper.document.plate import Plate, mains
from bearray.paper.document.pruning_plates import figure_3, figure_4, figure_6
from bearray.paper.document.read import Material
from bearray.paper.parts import PREFERENCE_METHODS
from bearray.report.records import Run


def build_plate(material: Material, number: int) -> Plate:
    """A figure by its number in the paper."""
    builders = {
        3: figure_3,
        4: figure_4,
        5: figure_5,
        6: figure_6,
        7: _figure_7,
        8: _figure_8,
        9: figure_9,
    }
    return builders[number](material)


def _figure_7(material: Material) -> Plate:
    decoding = str(material.config.run.decoding.normalize)
    rows, missing, panels = [], [], []
    runs: list[Run] = []
    series: dict[str, dict[str, dict[str, Value]]] = {"ndcg@10": {}, "hr@10": {}}
    for part in mains(material.config):
        for name in PREFERENCE_METHODS:
            method = material.method(part, name)
            scores = method.scores.get(decoding)
            if scores is None:
                missing.append(f"{part.data_name} {NAMES[name]}: {method.lacks(decoding)}")
                continue
            runs += scores.runs
            for metric, by in series.items():
                cell = scores.cells[metric]
                value = Value(value=cell.mean, low=cell.low, high=cell.high)
                by.setdefault(NAMES[name], {})[part.data_name] = value
                where = (part.data_name, NAMES[name], metric.upper())
                rows.append(
                    (*where, cell.mean, cell.low, cell.high, scores.n, len(scores.runs), cell.seed_sd)
                )
    for metric, by in series.items():
        if by:
            panels.append(Panel(title=metric.upper(), label=metric.upper(), series=by))
    caption = (
        "S-DPO, and S-DPO with BEAR's regulariser on the target and against the negatives: test cases, 95% "
        "intervals over users. The paper's bars have no numbers."
    )
    return Plate(
        number=7,
        header=("data set", "method", "metric", "mean", "low", "high", "n", "seeds", "seed sd"),
        rows=tuple(rows),
        figures=(bars("figure7", caption, panels),) if panels else (),
        missing=tuple(missing),
        runs=tuple(runs),
    )


def _figure_8(material: Material) -> Plate:
    rows, missing, notes, shown = [], [], [], []
    panels: dict[str, list[Curve]] = {"lambda": [], "xi": []}
    for part in mains(material.config):
        bear = material.method(part, "bear")
        chosen = next(iter(bear.tested), None) or next((r for r in bear.runs if r.chosen), None)
        varied = material.varied(part)
        ended = [run for run in varied if run.status == "finished" and run.valid("ndcg@10") is not None]
        if chosen is None or not ended:
            missing.append(f"{part.data_name}: {_why_unvaried(chosen, varied, bear.state)}")
            continue
        if len(ended) < len(varied):
            missing.append(
                f"{part.data_name}: {len(varied) - len(ended)} of {len(varied)} values not finished"
            )
        centre = _setting(chosen)
        notes.append(
            f"{part.data_name}: varied around lambda {centre[0]:.3g} and xi {centre[1]:.3g}, those of "
            "BEAR in Table 2; the larger circle."
        )
        shown += [chosen, *ended]
        for axis, title in enumerate(panels):
            points: dict[float, float] = {}
            for run in (*ended, chosen):
                setting, value = _setting(run), run.valid("ndcg@10")
                if setting[1 - axis] == centre[1 - axis] and value is not None:
                    points[setting[axis]] = value
                    rows.append(
                        (part.data_name, title, setting[axis], value, run.valid("hr@10"), run is chosen)
                    )
            curve = Curve(name=part.data_name, points=tuple(sorted(points.items())), chosen=centre[axis])
            panels[title].append(curve)
    caption = (
        "Validation NDCG@10 of BEAR over lambda, and over xi, the other one kept as chosen. On validation on "
        "purpose: nothing is tuned on test here, and these runs are never tested. One run a value, so a "
        "point varies with the seed as well. The paper's lines have no numbers in its text."
    )
    drawn = {title: lines for title, lines in panels.items() if lines}
    return Plate(
        number=8,
        header=("data set", "setting", "value", "valid NDCG@10", "valid HR@10", "chosen"),
        rows=tuple(sorted(rows, key=lambda row: (row[0], row[1], row[2]))),
        figures=(curves("figure8", caption, drawn, "validation NDCG@10"),) if drawn else (),
        missing=tuple(missing),
        notes=tuple(notes),
        runs=tuple(shown),
    )


def _why_unvaried(chosen: Run | None, varied: Sequence[Run], state: str) -> str:
    if chosen is None:
        return f"BEAR {state}" if state != NOT_RUN else NOT_RUN
    failed = [run for run in varied if run.status == "failed"]
    if failed:
        return f"failed: {failed[0].reason}"
    return "in training" if varied else NOT_RUN


def _setting(run: Run) -> tuple[float, float]:
    objective = run.settings.get("objective", {})
    return float(objective.get("lam", 0.0)), float(objective.get("xi", 0.0))
