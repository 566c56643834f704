"""Put the report together and write it: index.html, report.md, tables/ and figures/."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from bearray.report import beyond_text, efficiency_text, formats, html, pruning_text
from bearray.report.background import Backgrounds
from bearray.report.beyond import BeyondTable, build_beyond
from bearray.report.cells import Table
from bearray.report.collect import collect
from bearray.report.cost import Cost, build_costs, cost_figure
from bearray.report.curves import training_figure, violation_figure
from bearray.report.efficiency import read_efficiency
from bearray.report.efficiency_figures import efficiency_figures
from bearray.report.figures import Figure, save
from bearray.report.files_out import replaced_together, write_texts
from bearray.report.headline import build_headlines, primary
from bearray.report.latex import latex
from bearray.report.markdown import markdown
from bearray.report.overview import build_overview, overview_csv, overview_latex, overview_markdown
from bearray.report.pruning import PruningTable, build_pruning
from bearray.report.pruning_figures import pruning_figures
from bearray.report.published import beside
from bearray.report.records import Collection
from bearray.report.results import results_figure
from bearray.report.rows import evaluated, first_of_each, labels, ordered
from bearray.report.rows import groups as by_group
from bearray.report.search import Search, build_searches, search_figure
from bearray.report.tables import build_tables


def write_report(storage: Path, out: Path | None = None, *, data_dir: str | None = None) -> Path:
    """Read the run folders under `storage` and write the report into `out` (default: STORAGE/report).

    The same run folders give the same bytes, while the runs' data sets are there or not: what is beyond
    accuracy needs them.

    Args:
        storage: the storage folder of a sweep.
        out: where the report goes.
        data_dir: the data set of all runs, where it was moved (default: where each config.json has it).

    Returns:
        The path of index.html.

    Raises:
        MissingFileError: `storage` is missing or holds no run.
        DataError: a file in it is damaged.
        StorageError: the report cannot be written.
    """
    collection = collect(storage)
    target = storage / "report" if out is None else out
    tables = build_tables(collection.runs)
    searches = build_searches(collection.runs)
    costs = build_costs(collection.runs, searches)
    headlines = build_headlines(tables, costs)
    pruning = build_pruning(collection.runs)
    efficiency = read_efficiency(storage, tables)
    beyond = build_beyond(tables, Backgrounds(data_dir))
    groups = _groups(collection, tables, searches, costs, pruning, beyond)
    departures = list(dict.fromkeys(d for s in collection.sweeps for d in s.departures))
    title = f"bearray report: {collection.name}"
    pairs = [(t, p) for g in groups for t, p, _ in g.tables]
    overviews = [g.overview for g in groups if g.overview]
    glances = [line for overview in overviews for line in overview_markdown(overview)]
    sections = [
        *beyond_text.markdown(beyond),
        *efficiency_text.markdown(efficiency),
        *pruning_text.markdown(pruning),
    ]
    texts = {
        "report.md": markdown(title, headlines, pairs, searches, departures, sections, glances),
        "tables/overview.csv": overview_csv(overviews),
        "tables/results.csv": formats.tidy_csv(tables),
        "tables/table2.csv": formats.table2_csv(tables),
        "tables/published.csv": formats.published_csv(pairs),
        "tables/trials.csv": formats.trials_csv(searches),
        "tables/runs.csv": formats.runs_csv(collection),
        "index.html": html.page(title, collection, headlines, groups, departures, efficiency),
    }
    if efficiency:
        texts |= {
            "tables/efficiency.csv": efficiency_text.csv(efficiency),
            "tables/efficiency.tex": efficiency_text.latex(efficiency),
        }
    if beyond:
        texts |= {"tables/beyond.csv": beyond_text.csv(beyond)}
    if pruning:
        texts |= {
            "tables/pruning.csv": pruning_text.rates_csv(pruning),
            "tables/pruning_search.csv": pruning_text.search_csv(pruning),
            "tables/pruning_steps.csv": pruning_text.steps_csv(pruning),
        }
    for i, g in enumerate(groups, 1):
        slug = _slug(i, g.dataset, g.base_model)
        if g.overview:
            texts[f"tables/{slug}-overview.tex"] = overview_latex(g.overview)
        texts |= {f"tables/{slug}-{table.normalize}.tex": latex(table) for table, _, _ in g.tables}
        texts |= {f"tables/{slug}-beyond-{t.normalize}.tex": beyond_text.latex(t) for t in g.beyond}
        texts |= {f"tables/{_pruning_slug(slug, t)}.tex": pruning_text.latex(t) for t, _ in g.pruning}
    with replaced_together(target, last="index.html") as scratch:
        for figure in [*_figures(groups), *(efficiency_figures(efficiency) if efficiency else ())]:
            save(figure, scratch / "figures")
        write_texts(scratch, texts)
    return target / "index.html"


def _slug(index: int, dataset: str, base_model: str) -> str:
    """A file name for a data set and base model; the index keeps names apart that look alike without their
    signs."""
    words = re.sub(r"[^a-z0-9]+", "-", f"{dataset} {base_model}".lower()).strip("-")[:60].strip("-")
    return f"{index}-{words}" if words else str(index)


def _pruning_slug(slug: str, table: PruningTable) -> str:
    return "-".join([slug, "pruning", table.normalize, *([table.split] if table.split != "test" else [])])


def _groups(
    collection: Collection,
    tables: list[Table],
    searches: list[Search],
    costs: Mapping[tuple[str, str], list[Cost]],
    pruning: list[PruningTable],
    beyond: list[BeyondTable],
) -> list[html.Group]:
    found = []
    for i, ((dataset, base_model), members) in enumerate(by_group(collection.runs).items(), 1):
        slug, where = _slug(i, dataset, base_model), f"{dataset} with {base_model}"
        mine = [t for t in tables if (t.dataset, t.base_model) == (dataset, base_model)]
        first = primary(mine) if mine else None
        mine.sort(key=lambda t: t is not first)
        shown = [
            (
                t,
                beside(t),
                results_figure(f"{slug}-results", where, t) if t is first and len(t.parts) else None,
            )
            for t in mine
        ]
        # before anything was tested, a method's curves are worth seeing too
        drawn = ordered(evaluated(members) or [r for r in members if r.role == "method"])
        logged = first_of_each(r for r in drawn if len(r.steps) or len(r.epochs))
        names = labels(logged)
        pairs: list[tuple[Search, Figure | None]] = []
        for s in searches:
            if (s.dataset, s.base_model) == (dataset, base_model):
                pairs.append((s, search_figure(f"{slug}-search-{len(pairs) + 1}", s, collection.runs)))
        cost = costs.get((dataset, base_model), [])
        analyses = [t for t in pruning if (t.dataset, t.base_model) == (dataset, base_model)]
        violating = [r for r in logged if "violation" in r.steps]
        found.append(
            html.Group(
                dataset=dataset,
                base_model=base_model,
                base_model_kind=members[0].base_model_kind,
                tables=shown,
                searches=pairs,
                training=training_figure(f"{slug}-training", where, logged, names) if logged else None,
                violations=violation_figure(f"{slug}-violations", where, logged, names)
                if violating
                else None,
                costs=cost,
                cost_figure=cost_figure(f"{slug}-cost", where, cost) if any(c.total for c in cost) else None,
                pruning=[(t, pruning_figures(_pruning_slug(slug, t), t)) for t in analyses],
                overview=build_overview(mine, cost, analyses),
                beyond=sorted(
                    (t for t in beyond if (t.dataset, t.base_model) == (dataset, base_model)),
                    key=lambda t: first is None or t.normalize != first.normalize,
                ),
            )
        )
    return found


def _figures(groups: list[html.Group]) -> list[Figure]:
    figures: list[Figure | None] = []
    for g in groups:
        figures += [f for _, _, f in g.tables]
        figures += [f for _, f in g.searches]
        figures += [g.training, g.violations, g.cost_figure]
        figures += [f for _, drawn in g.pruning for f in drawn]
    return [f for f in figures if f is not None]
