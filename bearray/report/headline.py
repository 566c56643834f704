"""The answer in plain words, computed from the tables: which objective, by how much, how surely, at what
cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bearray.report.cells import ALPHA, NORMALIZER_WORDS, Comparison, Part, Row, Table
from bearray.report.cost import Cost

METRIC = "ndcg@10"
SAME_LIST = 0.5
"""Share of test cases with one and the same first title from which a reader is warned."""


@dataclass(frozen=True, kw_only=True)
class Headline:
    dataset: str
    base_model: str
    verdict: str
    """One sentence."""
    shown: bool
    """Whether the best method is shown, by the corrected test, to be better than the next best."""
    details: tuple[str, ...]
    """Sentences: how large and how sure, the other methods, the other metric and normaliser, the cost, the
    limits."""


def build_headlines(
    tables: Sequence[Table], costs: Mapping[tuple[str, str], Sequence[Cost]]
) -> list[Headline]:
    """One a data set and base model, from its table with the normaliser that most runs were decoded with."""
    keys = list(dict.fromkeys((t.dataset, t.base_model) for t in tables))
    return [
        _headline([t for t in tables if (t.dataset, t.base_model) == key], costs.get(key, ())) for key in keys
    ]


def primary(tables: Sequence[Table]) -> Table:
    """The table with the normaliser that most of its runs use themselves (trie on a tie)."""
    votes = Counter(row.run.normalize for t in tables for part in t.parts[:1] for row in part.rows)
    return max(tables, key=lambda t: votes[t.normalize])


def _headline(tables: Sequence[Table], costs: Sequence[Cost]) -> Headline:
    table = primary(tables)
    part = table.part("all")
    assert part is not None, "a table has at least one row"
    ranked = sorted(part.rows, key=lambda r: -r.cells[METRIC].mean)
    verdict, details = _verdict(part, ranked)
    details += _other_metric(part, ranked)
    details += _seeds(ranked)
    for other in tables:
        if other is not table:
            details += _other_decoding(other, ranked[0])
    details += _sameness(ranked, table.normalize)
    details += _cost(ranked, {c.run.id: c for c in costs})
    kind = ranked[0].run.base_model_kind
    if "stand-in" in kind:
        details.append(
            f"The base model {table.base_model} is a small stand-in trained here, not a pre-trained LLM: "
            "sizes and even signs of these differences need not carry over to one."
        )
    test = ranked[0].cells[METRIC].test
    return Headline(
        dataset=table.dataset,
        base_model=table.base_model,
        verdict=verdict,
        details=tuple(details),
        shown=test is not None and test.verdict == "better",
    )


def _sameness(ranked: Sequence[Row], normalize: str) -> list[str]:
    """Warn of methods that give everybody the same list: they have not learnt to use the history, and a table
    of such methods compares which constant list is luckier."""
    found: list[tuple[str, float, int]] = []
    for row in ranked:
        lists = [items for items in row.run.predictions[normalize]["items"] if len(items) and items[0] >= 0]
        if not lists:
            continue
        first = Counter(int(items[0]) for items in lists)
        share = first.most_common(1)[0][1] / len(lists)
        if share > SAME_LIST:
            found.append((row.label, share, len({int(i) for items in lists for i in items} - {-1})))
    if not found:
        return []
    if len(found) == 1:
        label, share, distinct = found[0]
        return [
            f"Caution: {label} puts the same title first for {share:.0%} of the test cases, and all its "
            f"lists together hold {distinct} titles. It hardly uses the history; comparing it says little."
        ]
    told = "; ".join(f"{label} {share:.0%}, {distinct} titles" for label, share, distinct in found)
    return [
        f"Caution: {len(found)} methods each put one title first for most of the test cases. They hardly use "
        "the history; comparing them says little. How often, and how many titles all lists of the method "
        f"together hold: {told}."
    ]


def _seeds(ranked: Sequence[Row]) -> list[str]:
    """How much of the lead another seed could take away."""
    best = ranked[0]
    sd = best.cells[METRIC].seed_sd
    if sd is None:
        return []
    text = f"Values are means over {best.seeds} seeds; from seed to seed {best.label} varies by {sd:.4f}"
    test = best.cells[METRIC].test
    second = next((r for r in ranked if test is not None and r.label == test.versus), None)
    other = second.cells[METRIC].seed_sd if second is not None else None
    if second is not None and other is not None:
        text += f" and {second.label} by {other:.4f}"
    text += " (standard deviation)."
    if test is not None and other is not None and abs(test.difference) < max(sd, other):
        text += " That is more than the difference, so other seeds could turn it round."
    return [text]


def _verdict(part: Part, ranked: Sequence[Row]) -> tuple[str, list[str]]:
    best = ranked[0]
    cell = best.cells[METRIC]
    of = f"{best.n:,} test cases of {best.users:,} users"
    if cell.mean == 0:
        return (
            "No method found a single target in its top 10, so nothing can be said about which is better.",
            [],
        )
    if len(ranked) == 1:
        text = f"Only {best.label} was evaluated, so nothing is compared: NDCG@10 {_interval(best)} on {of}."
        return text, []
    test = cell.test
    if test is None:
        text = (
            f"{best.label} has the highest NDCG@10, {_interval(best)}, but it was not tested on the same "
            "cases as the other methods, so no comparison is made."
        )
        return text, []
    second = next(r for r in ranked if r.label == test.versus)
    gain = relative(cell.mean, second.cells[METRIC].mean)
    values = f"NDCG@10 {_interval(best)} against {_interval(second)} on {of}"
    if test.verdict == "better":
        verdict = f"{best.label} recommends better than {second.label} here, the next best: {gain} NDCG@10."
    elif cell.mean == second.cells[METRIC].mean:
        verdict = f"{best.label} and {second.label} share the highest NDCG@10; neither is shown to be better."
    else:
        verdict = (
            f"No winner is shown. {best.label} has the highest NDCG@10, {gain} over {second.label}, but a "
            "difference of this size can be chance."
        )
    details = [f"{values}. {_sureness(test, part)}"]
    rest = [r for r in ranked[1:] if r is not second and r.cells[METRIC].test is not None]
    if rest:
        details.append("The others against the best: " + "; ".join(_against(r, best) for r in rest) + ".")
    return verdict, details


def _interval(row: Row) -> str:
    cell = row.cells[METRIC]
    return f"{cell.mean:.4f} (95% interval {cell.low:.4f} to {cell.high:.4f})"


def relative(a: float, b: float) -> str:
    """How far `a` is above `b`, as "+8.5%"."""
    return signed(a / b - 1, ".1%") if b > 0 else "from zero"


def signed(value: float, spec: str) -> str:
    """A number with its sign, the minus as a minus and not as a hyphen."""
    return f"{value:+{spec}}".replace("-", "−")


def p_words(p: float) -> str:
    """A p-value with the digits it deserves."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _sureness(test: Comparison, part: Part) -> str:
    return (
        f"Paired over users, the difference is {signed(test.difference, '.4f')} (95% interval "
        f"{signed(test.low, '.4f')} to {signed(test.high, '.4f')}), {p_words(test.p_holm)} after Holm's "
        f"correction for {part.tests} comparisons; below {ALPHA:g} counts as shown."
    )


def _against(row: Row, best: Row) -> str:
    test = row.cells[METRIC].test
    assert test is not None
    word = {"worse": "shown to be worse", "better": "shown to be better", "undecided": "not shown to differ"}
    share = relative(row.cells[METRIC].mean, best.cells[METRIC].mean)
    return f"{row.label} {share} ({word[test.verdict]}, {p_words(test.p_holm)})"


def _other_metric(part: Part, ranked: Sequence[Row]) -> list[str]:
    if len(ranked) < 2 or ranked[0].cells[METRIC].mean == 0:
        return []
    mean = max(r.cells["hr@10"].mean for r in part.rows)
    first = [r for r in ranked if r.cells["hr@10"].mean == mean]
    top = first[0]
    if len(first) > 1:
        return [f"HR@10 is highest, at {mean:.4f}, for {', '.join(r.label for r in first)} alike."]
    if top is ranked[0]:
        return [f"HR@10 has the same method in front, at {mean:.4f}."]
    return [
        f"HR@10 has another in front: {top.label}, at {mean:.4f}, against "
        f"{ranked[0].cells['hr@10'].mean:.4f}."
    ]


def _other_decoding(table: Table, best: Row) -> list[str]:
    part = table.part("all")
    if part is None or len(part.rows) < 2:
        return []
    top = max(part.rows, key=lambda r: r.cells[METRIC].mean)
    if top.cells[METRIC].mean == 0:
        return []
    test = top.cells[METRIC].test
    sure = "" if test is None else f" ({p_words(test.p_holm)} against {test.versus})"
    how = "Ranked by " if table.normalize == "exact" else "Decoded with the "
    how += NORMALIZER_WORDS[table.normalize]
    same = "the same method is" if top.label == best.label else f"{top.label} is"
    return [f"{how} instead, {same} in front at NDCG@10 {top.cells[METRIC].mean:.4f}{sure}."]


def _cost(ranked: Sequence[Row], costs: Mapping[str, Cost]) -> list[str]:
    best = costs.get(ranked[0].run.id)
    if best is None or best.seconds["train"] is None:
        return []
    text = f"Training {best.label} took {seconds(best.seconds['train'])}"
    ratios = [
        f"{best.seconds['train'] / t:.2f} times that of {c.label}"
        for r in ranked[1:]
        if (c := costs.get(r.run.id)) is not None and (t := c.seconds["train"])
    ]
    text += f" ({', '.join(ratios)})" if ratios else ""
    text += (
        f"; decoding its test cases took {seconds(best.seconds['test'])}." if best.seconds["test"] else "."
    )
    sentences = [text]
    searched = {c.label: c for r in ranked if (c := costs.get(r.run.id)) is not None and c.trials}
    for c in searched.values():
        others = [costs[r.run.id].label for r in ranked if r.run.id in costs and r.label not in searched]
        single = f"; {', '.join(others)} had one setting and no search" if others else ""
        sentences.append(
            f"{c.label}'s settings were chosen by validation among {c.trials} trials, which took "
            f"{seconds(c.search_seconds)} together{single}."
        )
    return sentences


def seconds(value: float | None) -> str:
    """Seconds for readers: 0.52 s, 43 s, 5,320 s (1.5 h)."""
    if value is None:
        return "an unrecorded time"
    if value < 10:
        return f"{value:.2f} s"
    return f"{value:,.0f} s" + (f" ({value / 3600:.1f} h)" if value >= 3600 else "")
