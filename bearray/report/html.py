"""The report as one HTML file: figures inside, no script, no address of another file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bearray.method_names import method_name
from bearray.plain import visible
from bearray.report import beyond_text, efficiency_text
from bearray.report.beyond import BeyondTable
from bearray.report.cells import METRICS, NORMALIZER_WORDS, POPULATION_WORDS, Table, metric_words
from bearray.report.cost import Cost
from bearray.report.efficiency import Efficiency
from bearray.report.efficiency_figures import efficiency_figures
from bearray.report.figures import COLOURS, DARK_COLOURS, Figure, inline
from bearray.report.formats import legend, mark, paired_rows, setting, spread
from bearray.report.headline import Headline, seconds
from bearray.report.overview import CAPTION, Overview, overview_cells
from bearray.report.pruning import EXPLANATION, PruningTable
from bearray.report.pruning_text import RATE_CAPTION, SEARCH_CAPTION, rate_cells, search_cells
from bearray.report.published import Published
from bearray.report.records import Collection, Run
from bearray.report.search import Search, axis_words

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATES = ("page.html.j2", "beyond.html.j2", "efficiency.html.j2", "macros.html.j2", "pruning.html.j2")


@dataclass(frozen=True, kw_only=True)
class Group:
    """All that the page shows for one data set and base model."""

    dataset: str
    base_model: str
    base_model_kind: str
    tables: Sequence[tuple[Table, Published, Figure | None]]
    """Its tables, the runs' own normaliser first."""
    searches: Sequence[tuple[Search, Figure | None]]
    training: Figure | None
    violations: Figure | None
    costs: Sequence[Cost]
    cost_figure: Figure | None
    pruning: Sequence[tuple[PruningTable, Sequence[Figure]]] = ()
    """What beam search loses, where it was measured."""
    overview: Overview | None = None
    beyond: Sequence[BeyondTable] = ()
    """Its tables, the runs' own normaliser first."""


def page(
    title: str,
    collection: Collection,
    headlines: Sequence[Headline],
    groups: Sequence[Group],
    departures: Sequence[str],
    efficiency: Efficiency | None = None,
) -> str:
    """The whole page. All names come from files that others wrote, so the template escapes every value."""
    environment, style = environment_of(TEMPLATES)
    environment.globals |= {"mark": mark, "setting": setting_text, "seconds": seconds}
    environment.globals |= {
        "method_name": method_name,
        "axis_words": axis_words,
        "metric_words": metric_words,
        "paired_rows": paired_rows,
    }
    return environment.get_template("page.html.j2").render(
        title=title,
        style=style,
        collection=collection,
        counts=count_words(collection.runs),
        headlines=headlines,
        groups=groups,
        departures=departures,
        metrics=METRICS,
        populations=POPULATION_WORDS,
        normalizers=NORMALIZER_WORDS,
        legend=legend,
        spread=spread,
        overview_words={"caption": CAPTION, "cells": overview_cells},
        beyond_words={"explanation": beyond_text.EXPLANATION, "parts": beyond_text.parts},
        pruning_words={
            "explanation": EXPLANATION,
            "rate_caption": RATE_CAPTION,
            "search_caption": SEARCH_CAPTION,
            "rate_cells": rate_cells,
            "search_cells": search_cells,
        },
        efficiency=efficiency
        and {
            "found": efficiency,
            "figures": efficiency_figures(efficiency),
            "parts": efficiency_text.parts(efficiency),
        },
        statistics=[(s.id, flatten(s.data_stats)) for s in collection.sweeps if s.data_stats],
        sweep_settings=[(s.id, flatten(_without_places(s.sweep))) for s in collection.sweeps if s.sweep],
        versions=versions(collection.runs),
    )


def environment_of(
    templates: Sequence[str], *, own: Mapping[str, str] | None = None
) -> tuple[Environment, Markup]:
    """Templates, every value of which is escaped, and the style sheet of all pages.

    Args:
        templates: files of this package. own: others by name.
    """
    from jinja2 import DictLoader, Environment, StrictUndefined
    from markupsafe import Markup

    here = files("bearray.report")
    texts = {name: here.joinpath(name).read_text(encoding="utf-8") for name in templates}
    environment = Environment(
        loader=DictLoader({**texts, **(own or {})}),
        autoescape=True,
        finalize=_seen,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["panels"] = _panels
    return environment, Markup(_style(here.joinpath("style.css.j2").read_text(encoding="utf-8")))


def _panels(figure: Figure) -> list[Markup]:
    from markupsafe import Markup

    return [Markup(svg) for svg in inline(figure)]


def _style(text: str) -> str:
    light = "".join(f"--series{i}:{c};" for i, c in enumerate(COLOURS))
    dark = "".join(f"--series{i}:{c};" for i, c in enumerate(DARK_COLOURS))
    return text.replace("/*light-series*/", light).replace("/*dark-series*/", dark)


def _seen(value: Any) -> Any:
    """What a template prints: others' text without characters that nobody sees; our own markup as it is."""
    from markupsafe import Markup

    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _without_places(sweep: Mapping[str, Any]) -> dict[str, Any]:
    """A sweep's settings with folders by their last name only: where they lie is nobody else's concern."""
    places = {k: Path(str(v)).name for k, v in sweep.items() if k in ("data_dir", "storage")}
    return {**sweep, **places}


def count_words(runs: Sequence[Run]) -> str:
    """How many runs there are, by status: "17 runs: 15 finished, 1 failed, 1 unfinished"."""
    by = Counter({s: 0 for s in ("finished", "failed", "unfinished")})
    by.update(sorted(r.status for r in runs))
    return f"{len(runs)} run{'s' * (len(runs) != 1)}: " + ", ".join(f"{n} {s}" for s, n in by.items() if n)


def setting_text(value: Any) -> str:
    """A value for a table cell: numbers with four significant digits, nothing as a dash."""
    if value is None:
        return "–"
    return setting(value)


def flatten(values: Mapping[str, Any], where: str = "") -> list[tuple[str, str]]:
    """Nested values as (dotted name, text) rows in the order of the file."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{where}.{key}" if where else str(key)
        if isinstance(value, Mapping):
            rows += flatten(value, name)
        elif isinstance(value, list) and not any(isinstance(v, (dict, list)) for v in value):
            rows.append((name, ", ".join(setting_text(v) for v in value)))
        elif isinstance(value, list):
            rows += flatten({str(i): v for i, v in enumerate(value)}, name)
        elif isinstance(value, int) and not isinstance(value, bool):
            rows.append((name, f"{value:,}"))
        else:
            rows.append((name, setting_text(value)))
    return rows


def versions(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """(package, version) rows; where runs differ, each version with how many runs have it."""
    found: dict[str, dict[str, int]] = {}
    for run in runs:
        for name, version in run.versions.items():
            counts = found.setdefault(name, {})
            counts[version] = counts.get(version, 0) + 1
    return [
        (
            name,
            next(iter(counts))
            if len(counts) == 1
            else ", ".join(f"{v} ({n} runs)" for v, n in sorted(counts.items())),
        )
        for name, counts in sorted(found.items())
    ]
