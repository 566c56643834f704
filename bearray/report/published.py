"""The numbers of the BEAR paper: its tables and what its text says; and Tables 2, 3 and 4 beside ours only
where data set and base model match."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from bearray.report.cells import Row, Table
from bearray.report.records import Run

_BASES = {
    "llama-3.2-3b": "llama-3.2-3b",
    "llama-3.2-1b": "llama-3.2-1b",
    "llama-3-8b": "llama-3-8b",
    "meta-llama-3-8b": "llama-3-8b",
}


@cache
def published() -> dict[str, Any]:
    """published.json, by what it holds:

    tables: Tables 2, 3 and 4, cells as whole multiples of `unit` (0.0001); sample: Table 5, in the same unit;
    data: Table 1 and, from the authors' data, windows and titles (Toy's training windows follow from the
    8:1:1 cut); test_cases: of which the hit ratios are counts; text: what the text says beside the tables.
    """
    text = files("bearray.report").joinpath("published.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    method: str
    """As the paper names it; "+X" is X on the table's backbone."""
    values: Mapping[str, float]
    """By metric (ndcg@5, ndcg@10, hr@5, hr@10), as fractions."""
    ours: Row | None
    """Our row of the same method in the table it is shown beside."""
    sft: bool
    """The backbone's own row, fine-tuned with SFT."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """The published rows for one of our tables, or the reason why there are none."""

    table: str | None
    rows: tuple[PublishedRow, ...]
    sentence: str
    """What to know before comparing, or why the published numbers are not comparable."""


def beside(table: Table) -> Published:
    """The published numbers for the data set and base model of `table`."""
    data = published()
    part = table.part("all")
    run = part.rows[0].run if part else None
    base = _BASES.get(table.base_model.rstrip("/").rsplit("/", 1)[-1].casefold())
    dataset = table.dataset.casefold()
    backbone = str(run.settings.get("model", {}).get("backbone", "bigrec")) if run else "bigrec"
    why = []
    if dataset not in data["test_cases"]:
        why.append(f"the paper has no data set {table.dataset} (it has {', '.join(data['test_cases'])})")
    found = None
    if base is None or (run is not None and run.base_model_kind == "local stand-in"):
        kind = (
            " (a local stand-in for a pre-trained model)" if run and "stand-in" in run.base_model_kind else ""
        )
        why.append(
            "the paper's base models are Llama-3.2-3B, Llama-3.2-1B and Llama-3-8B, not "
            f"{table.base_model}{kind}"
        )
    else:
        found = next(
            (t for t in data["tables"] if (t["base_model"], t["backbone"]) == (base, backbone)), None
        )
        if found is None:
            why.append(f"the paper has no results for the backbone {backbone} on {table.base_model}")
    if why or found is None or part is None:
        sentence = f"The published numbers are not comparable with this table: {'; and '.join(why)}."
        return Published(table=None, rows=(), sentence=sentence)
    mine: dict[str, Row] = {}
    for row in part.rows:
        mine.setdefault(row.run.objective, row)
    rows = tuple(
        PublishedRow(
            method=r["method"],
            values={m: v * data["unit"] for m, v in zip(data["metrics"], r["values"][dataset], strict=True)},
            ours=mine.get(r["ours"]),
            sft=r["ours"] == "sft",
        )
        for r in found["rows"]
    )
    sentence = _caution(found["table"], dataset, table)
    return Published(table=found["table"], rows=rows, sentence=sentence)


def _caution(number: str, dataset: str, table: Table) -> str:
    rows, decoding = table.parts[0].rows, table.normalize
    cases = published()["test_cases"][dataset]
    text = (
        f"Published numbers: Table {number} of arXiv 2601.22925, without intervals. Its BIGRec row was "
        "decoded with the softmax over the vocabulary, its MSL and BEAR rows with the softmax over the "
        "valid next tokens, all with length penalty 1, and its code reports the best epoch on the test "
        "set."
    )
    lacking = sorted({r.n for r in rows} - {cases})
    if lacking:
        counts = ", ".join(str(n) for n in lacking)
        text += f" It has {cases} test cases, ours {counts}: the two are not on the same cases."
    penalties = {1.0} if decoding.endswith("_lp1") else {_penalty(r.run) for r in rows}
    if penalties != {1.0}:
        text += f" Our length penalty is {', '.join(f'{p:g}' for p in sorted(penalties))}."
    return text


def _penalty(run: Run) -> float:
    return float(run.settings.get("decoding", {}).get("length_penalty", 0.0))
