"""Tables 2 to 5 as sheets: one a data set, backbone and base model, for every decoding, ours beside the
paper's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bearray.method_names import method_name
from bearray.paper.config import PaperConfig
from bearray.paper.document.methods import (
    DECODINGS,
    METRICS,
    NOT_RUN,
    Method,
    Scores,
    binomial_interval,
    compared,
)
from bearray.paper.document.read import Material
from bearray.paper.parts import SAMPLE_METHODS, Part, sample_parts
from bearray.report.published import published
from bearray.stats import PairedTest


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row of a sheet."""

    method: Method
    name: str
    """As the document calls it."""
    paper_name: str | None
    """As the paper calls it; None for a row that it does not have."""
    paper: Mapping[str, float]
    """Its numbers by metric; empty where it has none."""

    @property
    def scores(self) -> Mapping[str, Scores]:
        """Ours by decoding."""
        return self.method.scores


@dataclass(frozen=True, kw_only=True)
class Gain:
    """BEAR against the best other row, for one metric."""

    versus: str
    relative: float | None
    """The test's difference as a share of the other's mean over users; None where that is 0."""
    test: PairedTest


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One data set of a table."""

    table: int
    block: str
    """What sets it apart within the table: a backbone or a size; empty in Tables 2 and 5."""
    dataset: str
    part: Part | None
    """None where it is not asked for."""
    metrics: tuple[str, ...]
    lines: tuple[Line, ...]
    paper_n: int | None
    """Test cases of the paper; None where it lacks the data set."""
    paper_gain: Mapping[str, float]
    """The paper's improvement in percent by metric."""
    gains: dict[tuple[str, str], Gain | str] = field(default_factory=dict, repr=False)
    """Those that were asked for, by decoding and metric."""

    @cached_property
    def decodings(self) -> tuple[str, ...]:
        """Versions that hold a fine-tuned run."""
        found = {d for line in self.lines for s in line.scores.values() for d in s.runs[0].predictions}
        return tuple(d for d in DECODINGS if d in found)

    @property
    def any(self) -> bool:
        """Whether anything of it was tested."""
        return any(line.scores for line in self.lines)

    @property
    def begun(self) -> bool:
        """Whether anything of it was begun."""
        return any(line.method.runs for line in self.lines)

    def line(self, method: str) -> Line | None:
        return next((line for line in self.lines if line.method.name == method), None)

    def gain(self, decoding: str, metric: str) -> Gain | str:
        """BEAR against the best other of the paper's rows by the same metric on test, as the paper has it; or
        why there is none."""
        if (decoding, metric) not in self.gains:
            self.gains[decoding, metric] = self._gain(decoding, metric)
        return self.gains[decoding, metric]

    def _gain(self, decoding: str, metric: str) -> Gain | str:
        line = self.line("bear")
        bear = line.scores.get(decoding) if line else None
        if line is None or bear is None:
            return line.method.lacks(decoding) if line else NOT_RUN
        others = {
            other.name: scores
            for other in self.lines
            if other is not line and other.paper_name and (scores := other.scores.get(decoding))
        }
        same = {name: scores for name, scores in others.items() if scores.cases == bear.cases}
        if not same:
            return "no other row" if not others else "other test cases"
        best = max(same, key=lambda name: same[name].cells[metric].mean)
        test = compared(bear, same[best], metric)
        assert test is not None
        base = same[best].over_users(metric)
        relative = test.mean_difference / base if base > 0 else None
        return Gain(versus=best, relative=relative, test=test)

    def paper_interval(self, value: float, metric: str) -> tuple[float, float] | None:
        """The sampling error of a published hit ratio; None for NDCG, whose it cannot be told from."""
        return binomial_interval(value, self.paper_n) if metric.startswith("hr") and self.paper_n else None

    def notes(self) -> list[str]:
        """What a reader should know of single rows."""
        found = []
        for line in self.lines:
            if troubles := line.method.troubles:
                found.append(f"{line.name} lacks {'; '.join(troubles)}.")
            if line.method.left_out > 0:
                n = line.method.left_out
                found.append(f"{line.name}: {n} tested run{'s' * (n > 1)} with other settings left out.")
        cases = {s.cases for line in self.lines for s in line.scores.values()}
        if len(cases) > 1:
            counts = ", ".join(
                f"{line.name} {next(iter(line.scores.values())).n}" for line in self.lines if line.scores
            )
            found.append(f"Not all rows were tested on the same cases ({counts}); those are not compared.")
        seeds = {line.name: s.seeds for line in self.lines for s in list(line.scores.values())[:1]}
        if len(set(seeds.values())) > 1:
            listed = "; ".join(f"{name} {', '.join(map(str, own))}" for name, own in seeds.items())
            found.append(f"The rows have other seeds: {listed}.")
        return found


PAPER_DATASETS: tuple[str, ...] = tuple(published()["test_cases"])


def build_sheets(material: Material, table: int) -> list[Sheet]:
    """The sheets of Table 2, 3, 4 or 5: block by block, the data sets that are asked for first."""
    config = material.config
    if table == 5:
        return _samples(material)
    sheets = []
    for block, entry, backbone, base in _blocks(config, table):
        for name in _datasets(config):
            part = Part(name, backbone, base) if base is not None and name in config.datasets else None
            sheets.append(_sheet(material, table, block, name, part, entry))
    return sheets


def _blocks(config: PaperConfig, table: int) -> list[tuple[str, dict[str, Any], str, str | None]]:
    """(name, published table, backbone, base model or None where it is not asked for)."""
    entries = {(t["table"], t["backbone"], t["base_model"]): t for t in published()["tables"]}
    big, small, large = "llama-3.2-3b", "llama-3.2-1b", "llama-3-8b"
    if table == 2:
        return [("", entries["2", "bigrec", big], "bigrec", config.base_model)]
    if table == 3:
        return [
            (words, entries["3", b, big], b, config.base_model if b in config.backbones else None)
            for b, words in (("llara", "LLaRA"), ("allmrec", "A-LLMRec"))
        ]
    return [
        ("1B", entries["4", "bigrec", small], "bigrec", config.smaller_model),
        ("8B", entries["4", "bigrec", large], "bigrec", config.larger_model),
    ]


def _datasets(config: PaperConfig) -> list[str]:
    return [*config.datasets, *(d for d in PAPER_DATASETS if d not in config.datasets)]


def _sheet(
    material: Material, table: int, block: str, dataset: str, part: Part | None, entry: Mapping[str, Any]
) -> Sheet:
    own, unit = dataset.casefold(), published()["unit"]
    metrics = tuple(published()["metrics"])
    lines = []
    for row in entry["rows"]:
        values = row["values"].get(own)
        paper = dict(zip(metrics, (v * unit for v in values), strict=True)) if values else {}
        lines.append(_line(material, part, row["ours"], row["method"], paper))
    if table == 2 and part is not None:
        have = {row["ours"] for row in entry["rows"]}
        wanted = [*material.config.methods, *material.objectives(part)]
        extra = [m for m in dict.fromkeys(wanted) if m not in have]
        lines += [_line(material, part, method, None, {}) for method in extra]
    gain = entry["improvement_percent"].get(own)
    return Sheet(
        table=table,
        block=block,
        dataset=dataset,
        part=part,
        metrics=METRICS,
        lines=tuple(lines),
        paper_n=published()["test_cases"].get(own),
        paper_gain=dict(zip(metrics, gain, strict=True)) if gain else {},
    )


def _samples(material: Material) -> list[Sheet]:
    entry = published()["sample"]
    unit, metrics = published()["unit"], tuple(entry["metrics"])
    published_names = {name for row in entry["rows"] for name in row["values"]}
    parts = {part.dataset: part for part in sample_parts(material.config)}
    sheets = []
    for name in [*parts, *(n for n in entry["rows"][0]["values"] if n not in parts)]:
        own, part = name.casefold(), parts.get(name)
        lines = []
        for row in entry["rows"]:
            values = row["values"].get(own)
            paper = dict(zip(metrics, (v * unit for v in values), strict=True)) if values else {}
            lines.append(_line(material, part, row["ours"], row["method"], paper))
        assert [line.method.name for line in lines] == list(SAMPLE_METHODS)
        sheets.append(
            Sheet(
                table=5,
                block="",
                dataset=part.data_name if part else f"{name}-s",
                part=part,
                metrics=metrics,
                lines=tuple(lines),
                paper_n=entry["test_cases"] if own in published_names else None,
                paper_gain={},
            )
        )
    return sheets


def _line(
    material: Material, part: Part | None, method: str, paper_name: str | None, paper: Mapping[str, float]
) -> Line:
    runs = material.method(part, method) if part is not None else Method(name=method)
    return Line(method=runs, name=method_name(method), paper_name=paper_name, paper=paper)
