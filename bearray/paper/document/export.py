"""The tables and figures as files: CSV with every number, LaTeX in the paper's shape and one data set at a
time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

from bearray.paper.config import PaperConfig
from bearray.paper.document.entries import (
    DATA_HEADER,
    DataRow,
    entries,
    gain_texts,
    row_name,
    version_words,
    versions,
)
from bearray.paper.document.facts import Fact, short_name
from bearray.paper.document.finding import Finding
from bearray.paper.document.plate import Plate
from bearray.paper.document.sheets import Gain, Sheet
from bearray.report.formats import to_csv
from bearray.report.latex import text_table

_CELLS = (
    "table block data_set backbone base_model decoding method paper_name metric status mean low high n seeds "
    "seed_sd paper paper_low paper_high difference difference_low difference_high"
)
_GAINS = "table block data_set decoding metric versus relative difference low high p users paper_percent"


def slug(index: int, name: str) -> str:
    """A file name for a data set; the index keeps names apart that look alike without their signs."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    return f"{index}-{words}" if words else str(index)


def table_files(config: PaperConfig, table: int, sheets: Sequence[Sheet]) -> dict[str, str]:
    """CSV and LaTeX of Table 2, 3, 4 or 5 by file name."""
    texts = {f"table{table}.csv": _cells_csv(config, sheets)}
    if table != 5:
        texts[f"table{table}-improvement.csv"] = _gains_csv(config, sheets)
    for decoding in versions(config, sheets):
        texts[f"table{table}-{decoding}.tex"] = _wide(config, table, sheets, decoding)
    places: dict[str, int] = {}
    for sheet in sheets:
        place = places.setdefault(sheet.dataset, len(places) + 1)
        block = f"-{slug(0, sheet.block)[2:]}" if sheet.block else ""
        for decoding in sheet.decodings:
            name = f"table{table}{block}-{slug(place, sheet.dataset)}-{decoding}.tex"
            texts[name] = _narrow(config, sheet, decoding)
    return texts


def _where(sheet: Sheet) -> tuple[Any, ...]:
    part = sheet.part
    return sheet.table, sheet.block, sheet.dataset, part and part.backbone, part and short_name(part.base)


def _cells_csv(config: PaperConfig, sheets: Sequence[Sheet]) -> str:
    rows: list[tuple[Any, ...]] = []
    for sheet in sheets:
        for decoding, line in product(versions(config, [sheet]), sheet.lines):
            scores = line.scores.get(decoding)
            for metric, entry in entries(sheet, line, decoding).items():
                cell = entry.cell
                ours = (cell.mean, cell.low, cell.high) if cell else (None,) * 3
                more = (scores.n, len(scores.runs), cell.seed_sd) if scores and cell else (None,) * 3
                paper = (entry.paper, *(entry.paper_interval or (None, None)))
                status = "tested" if cell else entry.state
                names = (decoding, line.name, line.paper_name, metric, status)
                rows.append(
                    (*_where(sheet), *names, *ours, *more, *paper, *(entry.difference or (None,) * 3))
                )
    return to_csv(_CELLS.split(), rows)


def _gains_csv(config: PaperConfig, sheets: Sequence[Sheet]) -> str:
    rows: list[tuple[Any, ...]] = []
    for sheet in sheets:
        for decoding, metric in product(versions(config, [sheet]), sheet.metrics):
            gain, paper = sheet.gain(decoding, metric), sheet.paper_gain.get(metric)
            found: tuple[Any, ...] = (None,) * 7
            if isinstance(gain, Gain):
                t = gain.test
                found = (gain.versus, gain.relative, t.mean_difference, t.low, t.high, t.p_value, t.users)
            rows.append((sheet.table, sheet.block, sheet.dataset, decoding, metric, *found, paper))
    return to_csv(_GAINS.split(), rows)


def _wide(config: PaperConfig, table: int, sheets: Sequence[Sheet], decoding: str) -> str:
    """The paper's shape: a row a method, the data sets side by side, our means only."""
    datasets = list(dict.fromkeys(sheet.dataset for sheet in sheets))
    metrics = sheets[0].metrics
    header = ["Method", *(metric.upper() for _ in datasets for metric in metrics)]
    rows = []
    for block in dict.fromkeys(sheet.block for sheet in sheets):
        own = {sheet.dataset: sheet for sheet in sheets if sheet.block == block}
        names = {line.method.name: row_name(line) for sheet in own.values() for line in sheet.lines}
        for method, name in names.items():
            cells = []
            for dataset in datasets:
                line = own[dataset].line(method)
                found = entries(own[dataset], line, decoding) if line else {}
                cells += [found[m].texts()["ours"] if m in found else "not run" for m in metrics]
            rows.append([f"{block}: {name}" if block else name, *cells])
        if any(sheet.paper_gain for sheet in own.values()):
            gains = []
            for dataset, metric in product(datasets, metrics):
                text = gain_texts(own[dataset].gain(decoding, metric), None)
                gains.append(text["share"].partition(" over ")[0] or text["why"])
            rows.append([f"{block}: Imp.%" if block else "Imp.%", *gains])
    caption = f"Table {table}, ours: {version_words(config, decoding)}. Means over test cases"
    caption += ", Imp.% over users." if any(sheet.paper_gain for sheet in sheets) else "."
    spans = [("", 1), *((dataset, len(metrics)) for dataset in datasets)]
    return _tex(text_table(caption, header, rows, columns="r", spans=spans))


def _narrow(config: PaperConfig, sheet: Sheet, decoding: str) -> str:
    """One data set: ours with its interval, the paper's number and the difference."""
    header = ["Method", "", *(metric.upper() for metric in sheet.metrics)]
    rows = []
    for line in sheet.lines:
        found = [entry.texts() for entry in entries(sheet, line, decoding).values()]
        rows.append([row_name(line), "ours", *(f"{t['ours']} {t['interval']}".strip() for t in found)])
        if line.paper:
            rows.append(["", "paper", *(t["paper"] for t in found)])
        if line.paper and decoding in line.scores:
            rows.append(["", "difference", *(f"{t['difference']} {t['difference_interval']}" for t in found)])
    if sheet.table != 5:
        gains = [gain_texts(sheet.gain(decoding, m), sheet.paper_gain.get(m)) for m in sheet.metrics]
        rows.append(["BEAR against the best other", "ours", *(g["share"] or g["why"] for g in gains)])
        rows.append(["", "difference", *(g["difference"] for g in gains)])
        rows.append(["", "test", *(g["p"] for g in gains)])
        rows.append(["", "paper", *(g["paper"] for g in gains)])
    block = f", {sheet.block}" if sheet.block else ""
    caption = (
        f"Table {sheet.table}, {sheet.dataset}{block}: {version_words(config, decoding)}. Ours with its 95% "
        "interval over users; the paper gives none, so a difference has ours only."
    )
    return _tex(text_table(caption, header, rows, columns="r"))


def _tex(lines: Iterable[str]) -> str:
    return "\n".join([r"% needs \usepackage{booktabs}", *lines]) + "\n"


def data_files(rows: Sequence[DataRow]) -> dict[str, str]:
    """CSV and LaTeX of Table 1."""
    tidy = [
        (row.name, who, *values) for row in rows for who, values in (("ours", row.ours), ("paper", row.paper))
    ]
    cells = []
    for row in rows:
        texts = row.texts()
        cells.append([row.name, "ours", *(ours for ours, _ in texts)])
        cells.append(["", "paper", *(paper for _, paper in texts)])
    header = ["Data set", "", *DATA_HEADER]
    return {
        "table1.csv": to_csv(["data set", "whose", *DATA_HEADER], tidy),
        "table1.tex": _tex(
            text_table("Table 1, data sets: ours and the paper's.", header, cells, columns="r")
        ),
    }


def plate_csv(plate: Plate) -> str:
    """A figure's numbers."""
    return to_csv(plate.header, plate.rows)


def findings_csv(findings: Sequence[Finding]) -> str:
    """What came out."""
    return to_csv(
        ["data_set", "finding", "verdict", "numbers"],
        [(f.dataset, f.claim, f.verdict, f.told) for f in findings],
    )


def facts_csv(facts: Sequence[tuple[str, Sequence[Fact]]]) -> str:
    """What is comparable, by table or figure."""
    words = {True: "same", False: "other", None: "cannot be told"}
    rows = [(name, f.about, f.ours, f.paper, words[f.same]) for name, own in facts for f in own]
    return to_csv(["element", "about", "ours", "paper", "comparable"], rows)
