"""What beam search loses, from the runs' pruning/summary.json (`bearray pruning`): rates, causes, and what
wider beams and exact search would gain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bearray.data.dataset import SPLITS
from bearray.errors import DataError
from bearray.report.files import read_json
from bearray.report.records import Run
from bearray.report.rows import groups, labels, ordered

EXPLANATION = (
    "Pruned: a target that deserves a place among the K most probable titles but is not in the list of beam "
    "search, because a prefix of it was dropped on the way. PR@K is the share of such targets that are "
    "pruned. Exact: the true rank among all titles of the catalogue decides which targets deserve a place. "
    "Pool: the rank among the titles that beam search found, and the target itself, decides; that is cheap, "
    "but as a rule too high, since other titles that were pruned are not seen. Condition (3.2) of the "
    "paper: each token of the target is among the B most probable ones of its step; where that fails, the "
    "target can be cut whatever its overall probability."
)


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval over users."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Share:
    """`count` of `of` cases: the share with its 95% interval over users, None for a share of nothing."""

    share: Estimate | None
    count: int
    of: int


@dataclass(frozen=True, kw_only=True)
class Rate:
    """PR@K by both countings."""

    k: int
    exact: Share
    pool: Share
    unknown: int
    """Cases left out of `exact`, since it is not proven whether they rank among the K."""


@dataclass(frozen=True, kw_only=True)
class SearchRow:
    """One way to search, over the same cases."""

    method: str
    width: int | None
    """Beam width; None: exact search."""
    metrics: Mapping[str, Estimate]
    """By ndcg@K and hr@K."""
    proven: float | None
    """Share of the lists that are proven to be the true best ones; None where that was not looked at."""
    nodes: float
    """Mean nodes of the trie whose continuations were scored for a case."""
    milliseconds: float
    """Mean time of a case."""


@dataclass(frozen=True, kw_only=True)
class PruningRow:
    """One run's analysis."""

    label: str
    run: str
    """Id of the run; empty where it is not one of a report."""
    settings: Mapping[str, Any]
    """What was measured: split, rows, of, normalize, beam_width, node_budget ..."""
    n: int
    users: int
    beam_width: int
    rank_proven: float
    rates: tuple[Rate, ...]
    any_violation: Share
    """Of the exact prunings at K = B: condition (3.2) fails somewhere (Figure 4)."""
    at_cut: Share
    """... at the very step at which the target was cut."""
    cut_steps: Mapping[int, int]
    """Token, from 1 on, at which a target was cut -> targets, of the same prunings."""
    cut_gap: Mapping[str, float] | None
    """Nats that the prefix was below the last one kept: median, q25, q75."""
    searches: tuple[SearchRow, ...]

    @property
    def pruned(self) -> int:
        """Exact prunings at K = B, which the causes are counted of."""
        return self.any_violation.of


@dataclass(frozen=True, kw_only=True)
class PruningTable:
    """The methods of one data set, base model, normaliser and split."""

    dataset: str
    base_model: str
    normalize: str
    split: str
    rows: tuple[PruningRow, ...]
    notes: tuple[str, ...]


def build_pruning(runs: Iterable[Run]) -> list[PruningTable]:
    """All analyses of finished runs, by data set, base model, normaliser (trie first) and split.

    Raises:
        DataError: a summary.json that is damaged.
    """
    tables = []
    for (dataset, base_model), members in groups(r for r in runs if r.status == "finished").items():
        found = [(run, _read(run)) for run in ordered(members)]
        names = labels([run for run, contents in found if contents])
        kinds = {_kind(c) for _, contents in found for c in contents.values()}
        for normalize, split in sorted(kinds, key=lambda kind: (kind[0] != "trie", kind[1] != "test")):
            rows = [
                parse_row(names[run.id], content, path, run=run.id)
                for run, contents in found
                for path, content in contents.items()
                if _kind(content) == (normalize, split)
            ]
            tables.append(
                PruningTable(
                    dataset=dataset,
                    base_model=base_model,
                    normalize=normalize,
                    split=split,
                    rows=tuple(rows),
                    notes=tuple(_notes(rows)),
                )
            )
    return tables


def _read(run: Run) -> dict[Path, dict[str, Any]]:
    paths = sorted(run.folder.glob("pruning*/summary.json"))
    contents = {path: read_json(path) for path in paths}
    for path, content in contents.items():
        for part in ("settings", "summary"):
            if not isinstance(content.get(part), dict):
                raise DataError(f"{path} has no {part!r}; it is no pruning analysis: measure it again")
        normalize = content["settings"].get("normalize")
        if normalize not in ("trie", "full"):
            raise DataError(f"{path}: settings.normalize is {normalize!r}; it must be 'trie' or 'full'")
        split = content["settings"].get("split")
        if split not in SPLITS:  # it becomes part of a figure's file name
            raise DataError(f"{path}: settings.split is {split!r}; it must be one of {', '.join(SPLITS)}")
    return contents


def _kind(content: Mapping[str, Any]) -> tuple[str, str]:
    return str(content["settings"].get("normalize")), str(content["settings"].get("split"))


def parse_row(
    label: str, content: Mapping[str, Any], path: Path | None = None, *, run: str = ""
) -> PruningRow:
    """A row from the content of a summary.json.

    Raises:
        DataError: something that belongs into it is missing or of another kind.
    """
    settings, summary = content["settings"], content["summary"]
    try:
        violations = summary["violations"]
        ks = sorted(map(int, summary["pruning"]))
        return PruningRow(
            label=label,
            run=run,
            settings=settings,
            n=int(summary["n"]),
            users=int(summary["users"]),
            beam_width=int(summary["beam_width"]),
            rank_proven=float(summary["rank_proven"]),
            rates=tuple(_rate(k, summary["pruning"][str(k)]) for k in ks),
            any_violation=_share(violations["any"], violations["any"]["count"], violations["pruned"]),
            at_cut=_share(violations["at_cut"], violations["at_cut"]["count"], violations["pruned"]),
            cut_steps={int(step): int(n) for step, n in summary["cut_steps"].items()},
            cut_gap=None if summary["cut_gap"]["median"] is None else _floats(summary["cut_gap"]),
            searches=tuple(_search(s) for s in summary["search"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        where = path or "the pruning summary"
        raise DataError(f"{where} is damaged ({type(error).__name__}: {error}); measure it again") from error


def _floats(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in values.items()}


def _share(values: Mapping[str, Any], count: int, of: int) -> Share:
    numbers = [values[name] for name in ("rate", "low", "high")]
    share = None if None in numbers else Estimate(*map(float, numbers))
    return Share(share=share, count=int(count), of=int(of))


def _rate(k: int, values: Mapping[str, Any]) -> Rate:
    exact, pool = values["exact"], values["pool"]
    return Rate(
        k=k,
        exact=_share(exact, exact["pruned"], exact["of"]),
        pool=_share(pool, pool["pruned"], pool["of"]),
        unknown=int(exact["unknown"]),
    )


def _search(values: Mapping[str, Any]) -> SearchRow:
    metrics = {
        name: Estimate(*(float(v[part]) for part in ("value", "low", "high")))
        for name, v in values.items()
        if "@" in name
    }
    return SearchRow(
        method=str(values["method"]),
        width=None if values["width"] is None else int(values["width"]),
        metrics=metrics,
        proven=None if values["proven"] is None else float(values["proven"]),
        nodes=float(values["nodes"]),
        milliseconds=1000.0 * float(values["seconds"]),
    )


def _notes(rows: Sequence[PruningRow]) -> list[str]:
    """What a reader must know before comparing rows."""
    notes = []
    words = {"rows": "test cases measured", "beam_width": "beam width", "node_budget": "node budget"}
    for name, text in words.items():
        values = [row.settings.get(name) for row in rows]
        if any(v != values[0] for v in values):
            listed = ", ".join(f"{r.label} {v}" for r, v in zip(rows, values, strict=True))
            notes.append(f"The rows differ in the {text}: {listed}.")
    sampled = [(r.label, r.n, r.settings["of"]) for r in rows if (r.settings.get("of") or 0) > r.n]
    if sampled:
        listed = ", ".join(f"{label} {n} of {total}" for label, n, total in sampled)
        notes.append(f"Random samples of the test cases, not all of them: {listed}.")
    for row in rows:
        unknown = [f"{rate.unknown} at K = {rate.k}" for rate in row.rates if rate.unknown]
        if unknown:
            notes.append(
                f"{row.label}: the node budget ended before it was known whether a target deserves a place; "
                f"such cases are left out of the exact rates ({', '.join(unknown)})."
            )
    return notes
