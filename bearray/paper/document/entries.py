"""The cells of the tables: ours, the paper's, the difference; the same for the page, LaTeX and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bearray.paper.config import PaperConfig
from bearray.paper.document.read import Material
from bearray.paper.document.sheets import PAPER_DATASETS, Gain, Line, Sheet
from bearray.paper.parts import sample_parts
from bearray.report.cells import NORMALIZER_WORDS, Cell
from bearray.report.headline import p_words, signed
from bearray.report.published import published


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One metric of one row."""

    cell: Cell | None
    """Ours; None where there is none."""
    state: str
    """Why not."""
    paper: float | None
    paper_interval: tuple[float, float] | None
    """Wilson's for a hit ratio; the paper gives none."""
    best: bool = False
    """The highest of ours in its column."""

    @property
    def difference(self) -> tuple[float, float, float] | None:
        """Ours minus the paper's, with our interval shifted by the paper's number."""
        if self.cell is None or self.paper is None:
            return None
        return self.cell.mean - self.paper, self.cell.low - self.paper, self.cell.high - self.paper

    def texts(self) -> dict[str, str]:
        """For readers: ours, the paper's and the difference, each with its interval; empty where there is
        nothing."""
        names = ("ours", "interval", "paper", "paper_interval", "difference", "difference_interval")
        found = dict.fromkeys(names, "")
        if self.cell is not None:
            found["ours"] = f"{self.cell.mean:.4f}"
            sd = "" if self.cell.seed_sd is None else f" ±{self.cell.seed_sd:.4f}"
            found["interval"] = f"[{self.cell.low:.4f}, {self.cell.high:.4f}]{sd}"
        else:
            found["ours"] = self.state
        if self.paper is not None:
            found["paper"] = f"{self.paper:.4f}"
        if self.paper_interval is not None:
            low, high = self.paper_interval
            found["paper_interval"] = f"[{low:.4f}, {high:.4f}]"
        if self.difference is not None:
            value, *ends = (signed(x, ".4f") for x in self.difference)
            found |= {"difference": value, "difference_interval": f"[{', '.join(ends)}]"}
        return found


def entries(sheet: Sheet, line: Line, decoding: str) -> dict[str, Entry]:
    """A row by metric."""
    found = {}
    scores = line.scores.get(decoding)
    for metric in sheet.metrics:
        paper = line.paper.get(metric)
        means = [s.cells[metric].mean for ln in sheet.lines if (s := ln.scores.get(decoding)) is not None]
        cell = scores.cells[metric] if scores else None
        found[metric] = Entry(
            cell=cell,
            state=line.method.lacks(decoding),
            paper=paper,
            paper_interval=sheet.paper_interval(paper, metric) if paper is not None else None,
            best=cell is not None and len(means) > 1 and cell.mean == max(means) > 0,
        )
    return found


def row_name(line: Line) -> str:
    """As we call it, and as the paper does where that is another name."""
    paper = line.paper_name
    if paper is None:
        return f"{line.name} (not in the paper)"
    return (
        line.name if paper.lstrip("+").casefold() == line.name.casefold() else f"{line.name} (paper: {paper})"
    )


def gain_texts(gain: Gain | str, paper: float | None) -> dict[str, str]:
    """BEAR against the best other: share, difference, p and the paper's share; or why there is nothing."""
    found = {"share": "", "difference": "", "p": "", "paper": "", "why": ""}
    if paper is not None:
        found["paper"] = signed(paper, ".2f") + "%"
    if not isinstance(gain, Gain):
        return found | {"why": gain}
    share = "from zero" if gain.relative is None else signed(gain.relative, ".2%")
    t = gain.test
    ends = f"[{signed(t.low, '.4f')}, {signed(t.high, '.4f')}]"
    return found | {
        "share": f"{share} over {gain.versus}",
        "difference": f"{signed(t.mean_difference, '.4f')} {ends}",
        "p": p_words(t.p_value),
    }


def version_words(config: PaperConfig, decoding: str) -> str:
    """softmax over the valid next tokens (trie), length penalty 0."""
    words = NORMALIZER_WORDS[decoding]
    if decoding.endswith("_lp1"):
        return words
    return f"{words} and length penalty {config.run.decoding.length_penalty:g}"


def versions(config: PaperConfig, sheets: Sequence[Sheet]) -> tuple[str, ...]:
    """Decodings of some sheets that hold results, the main one first, which is always there."""
    main = str(config.run.decoding.normalize)
    found = {d for sheet in sheets for d in sheet.decodings}
    return tuple(sorted({main, *found}, key=lambda d: (d != main, d.endswith("_lp1"), d != "trie_lp1")))


DATA_HEADER = (
    "users",
    "items",
    "interactions",
    "density",
    "training windows",
    "test cases",
    "distinct titles",
)


@dataclass(frozen=True, kw_only=True)
class DataRow:
    """A data set in Table 1."""

    name: str
    ours: tuple[int | float | None, ...]
    """In the order of `DATA_HEADER`; all None where it was not opened yet."""
    paper: tuple[int | float | None, ...]
    """All None where it is not one of the paper's."""

    def texts(self) -> list[tuple[str, str]]:
        """(ours, paper's) for readers, by column."""
        ours = [_count(v) for v in self.ours] if any(v is not None for v in self.ours) else ["not run"] * 7
        return list(zip(ours, (_count(v) for v in self.paper), strict=True))


def data_rows(material: Material) -> list[DataRow]:
    """Table 1: the data sets that are asked for, their samples, then the paper's others."""
    config, stated = material.config, published()
    samples = [part.data_name for part in sample_parts(config)] if 5 in config.tables else []
    names = [*config.datasets, *samples, *(d for d in PAPER_DATASETS if d not in config.datasets)]
    rows = []
    for name in names:
        stats: Mapping[str, Any] = material.stats(name)
        paper = stated["data"].get(name.casefold(), {})
        windows = stats.get("windows", {})
        limit, test = config.run.data.test_windows, windows.get("test")
        used = min(test, limit) if isinstance(test, int) and limit is not None else test
        plain = ("users", "items", "interactions", "density")
        rows.append(
            DataRow(
                name=name,
                ours=(
                    *(stats.get(key) for key in plain),
                    windows.get("train"),
                    used,
                    stats.get("distinct_titles"),
                ),
                paper=(
                    *(paper.get(key) for key in plain),
                    paper.get("train_windows"),
                    stated["test_cases"].get(name.casefold()),
                    paper.get("distinct_titles"),
                ),
            )
        )
    return rows


def _count(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4%}"
    return f"{value:,}" if isinstance(value, int) else "–"
