"""The document as one HTML file, in the style of the reports: figures inside, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from bearray.paper.config import PaperConfig
from bearray.paper.document.entries import (
    DATA_HEADER,
    DataRow,
    entries,
    gain_texts,
    version_words,
    versions,
)
from bearray.paper.document.facts import Fact, short_name
from bearray.paper.document.finding import Finding
from bearray.paper.document.plate import Plate
from bearray.paper.document.sheets import Sheet
from bearray.paper.document.words import sentence
from bearray.paper.parts import TITLES
from bearray.report.html import count_words, environment_of
from bearray.report.html import versions as package_versions
from bearray.report.records import Run

TITLE = "BEAR: the paper's tables and figures, run here"
LEGEND = (
    "In each cell: ours, with its 95% interval over users (± the standard deviation of the seeds' means, "
    "where there are several); the paper's number; ours minus the paper's. The paper gives no intervals: the "
    "interval of a difference is ours, shifted by the paper's number, and takes that for exact. A hit ratio "
    "is k of n test cases, so the paper's has a sampling error of its own: its 95% Wilson interval stands "
    "below it. The highest of ours is bold. Not run: there is no run; in training: begun and not ended; "
    "trained, not tested: test cases are not decoded yet; not decoded so: tested, but not in this version."
)
GAIN = (
    "BEAR against the best other row of the paper's: the highest value of the same metric on test, as in the "
    "paper; to pick the best of several on test favours that one. Share, difference and paired test are over "
    "users, each user's mean first, while the rows are means over test cases: the share is not the quotient "
    "of two cells. Not corrected."
)
GENERATIVE = "Baselines score all titles, without beams or normaliser: one result stands in all versions."


@dataclass(frozen=True, kw_only=True)
class Element:
    """A table or figure of the document."""

    kind: str
    number: int
    facts: Sequence[Fact]
    sheets: Sequence[Sheet] = ()
    plate: Plate | None = None

    @property
    def id(self) -> str:
        return f"{self.kind}-{self.number}"

    @property
    def name(self) -> str:
        return f"{self.kind.capitalize()} {self.number}"

    @property
    def title(self) -> str:
        return TITLES[self.kind, self.number]


def page(
    config: PaperConfig,
    elements: Sequence[Element],
    data: Sequence[DataRow],
    findings: Sequence[Finding],
    runs: Sequence[Run],
) -> str:
    """The whole page. Names come from files that others wrote, so the template escapes every value.

    Args:
        elements: in their order. data: of Table 1. findings: what came out. runs: all that were read.
    """
    own = files("bearray.paper.document").joinpath("paper.html.j2").read_text(encoding="utf-8")
    environment, style = environment_of(("macros.html.j2",), own={"paper.html.j2": own})
    by_dataset: dict[str, list[Finding]] = {}
    for finding in findings:
        by_dataset.setdefault(finding.dataset, []).append(finding)
    return environment.get_template("paper.html.j2").render(
        title=TITLE,
        style=style,
        config=config,
        counts=count_words(runs) if runs else "Nothing was run yet",
        elements=elements,
        findings=by_dataset,
        data_header=DATA_HEADER,
        data=data,
        legend=LEGEND,
        gain_legend=GAIN,
        baselines_note=GENERATIVE,
        sentence=sentence,
        blocks=lambda sheets: _blocks(config, sheets),
        details=_details,
        stand_ins=sorted({short_name(r.base_model) for r in runs if "stand-in" in r.base_model_kind}),
        unended=[run for run in runs if run.status != "finished"],
        packages=package_versions(runs),
        revisions=sorted({run.git for run in runs if run.git}),
    )


def _blocks(config: PaperConfig, sheets: Sequence[Sheet]) -> list[dict[str, Any]]:
    """Sheets as the template shows them: block by block, those with something to show apart from those that
    are not run at all."""
    found = []
    for block in dict.fromkeys(sheet.block for sheet in sheets):
        own = [_sheet(config, sheet) for sheet in sheets if sheet.block == block]
        begun = [sheet for sheet in own if sheet["begun"] or sheet["asked"]]
        found.append({"name": block, "shown": begun, "not_run": [s for s in own if s not in begun]})
    return found


def _sheet(config: PaperConfig, sheet: Sheet) -> dict[str, Any]:
    part = sheet.part
    return {
        "id": f"table-{sheet.table}-{'-'.join(sheet.block.lower().split())}",
        "dataset": sheet.dataset,
        "base": short_name(part.base) if part else "",
        "asked": part is not None,
        "begun": sheet.begun,
        "metrics": [metric.upper() for metric in sheet.metrics],
        "versions": [
            {
                "words": version_words(config, d),
                "main": i == 0,
                "rows": _rows(sheet, d),
                "gains": _gains(sheet, d),
            }
            for i, d in enumerate(versions(config, [sheet]))
        ],
        "notes": sheet.notes(),
        "paper_n": sheet.paper_n,
    }


def _rows(sheet: Sheet, decoding: str) -> list[dict[str, Any]]:
    rows = []
    for line in sheet.lines:
        found = entries(sheet, line, decoding)
        scores = line.scores.get(decoding)
        rows.append(
            {
                "name": line.name,
                "paper_name": line.paper_name,
                "state": "" if scores else line.method.lacks(decoding),
                "n": f"{scores.n:,}" if scores else "–",
                "seeds": str(len(scores.runs)) if scores else "–",
                "cells": [{**entry.texts(), "best": entry.best} for entry in found.values()],
            }
        )
    return rows


def _gains(sheet: Sheet, decoding: str) -> list[Mapping[str, str]]:
    if sheet.table == 5:
        return []
    return [gain_texts(sheet.gain(decoding, m), sheet.paper_gain.get(m)) for m in sheet.metrics]


def _details(plate: Plate) -> tuple[list[str], list[list[str]]]:
    """A figure's numbers as a table."""
    return list(plate.header), [[_text(value) for value in row] for row in plate.rows]


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
