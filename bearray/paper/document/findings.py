"""What came out: the paper's findings, each by the numbers of the runs: it holds, does not hold, or is open.

A finding about accuracy is decided by a paired test over users, corrected (Holm) for all such comparisons in
the document; one about a share or a cost by its 95% interval. Nothing is said that the numbers do not say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bearray.method_names import NAMES
from bearray.paper.document.cost_findings import beam_simulation_is_costly, bear_costs_no_more
from bearray.paper.document.facts import short_name
from bearray.paper.document.finding import DOES_NOT, HOLDS, NOT_RUN_YET, OPEN, Finding
from bearray.paper.document.methods import Scores, compared
from bearray.paper.document.pruning_findings import prunes_less, violations
from bearray.paper.document.read import Material
from bearray.paper.document.sheets import Gain, Sheet
from bearray.paper.parts import Part, base_part, sample_parts
from bearray.report.cells import ALPHA
from bearray.report.headline import p_words, signed
from bearray.stats import PairedTest, holm

METRIC = "ndcg@10"
CLOSE = 0.10
"""How far from BEAR's NDCG@10 counts as close to it; the paper's two numbers for (3.1) are 7% and 10% off."""


@dataclass(frozen=True, kw_only=True)
class _Open:
    """A finding whose test is not corrected yet."""

    dataset: str
    claim: str
    test: PairedTest
    key: tuple[str, ...]
    """Equal for one and the same comparison."""
    told: str


def build_findings(material: Material, sheets: Sequence[Sheet]) -> list[Finding]:
    """All findings, data set by data set.

    Args:
        sheets: of Tables 2 to 5, whether they are shown or not.
    """
    drafts = [draft for name in material.config.datasets for draft in _of_dataset(material, sheets, name)]
    tests = {draft.key: draft.test.p_value for draft in drafts if isinstance(draft, _Open)}
    corrected = dict(zip(tests, holm(list(tests.values())), strict=True)) if tests else {}
    return [_decided(d, corrected[d.key], len(tests)) if isinstance(d, _Open) else d for d in drafts]


def _decided(draft: _Open, p: float, count: int) -> Finding:
    test = draft.test
    verdict = OPEN if not p < ALPHA else HOLDS if test.mean_difference > 0 else DOES_NOT
    correction = f" for {count} comparisons" if count > 1 else ""
    told = (
        f"{draft.told} Paired over {test.users:,} users: {signed(test.mean_difference, '.4f')} (95% interval "
        f"{signed(test.low, '.4f')} to {signed(test.high, '.4f')}), {p_words(test.p_value)}, and "
        f"{p_words(p)} after Holm's correction{correction}."
    )
    return Finding(dataset=draft.dataset, claim=draft.claim, verdict=verdict, told=told)


def _of_dataset(material: Material, sheets: Sequence[Sheet], name: str) -> Iterator[_Open | Finding]:
    own = {(s.table, s.block): s for s in sheets if s.part is not None and s.part.dataset == name}
    decoding = str(material.config.run.decoding.normalize)
    main = own[2, ""]
    yield _best_other(name, main, decoding)
    yield _pair(name, main, "bear", "msl", decoding, "BEAR recommends better than MSL")
    yield _pair(name, main, "msl", "sft", decoding, "MSL recommends better than SFT")
    part = base_part(material.config, name)
    for other in ("sft", "msl"):
        yield prunes_less(material, part, other)
    yield violations(material, part)
    yield _on_sdpo(material, part, decoding)
    sample = next((p for p in sample_parts(material.config) if p.dataset == name), None)
    if sample is not None:
        yield _close(name, own[5, ""], decoding)
        yield beam_simulation_is_costly(material, sample)
    yield bear_costs_no_more(material, part, sample)
    for (_, block), sheet in own.items():
        if block:
            claim = f"BEAR recommends better than MSL with {block} ({_model(sheet)})"
            yield _pair(name, sheet, "bear", "msl", decoding, claim)


def _folder(sheet: Sheet) -> str:
    assert sheet.part is not None, "only sheets that are asked for have findings"
    return sheet.part.folder


def _model(sheet: Sheet) -> str:
    assert sheet.part is not None, "only sheets that are asked for have findings"
    return short_name(sheet.part.base)


def _value(name: str, scores: Scores) -> str:
    cell = scores.cells[METRIC]
    return f"{name} {cell.mean:.4f} ({cell.low:.4f} to {cell.high:.4f})"


def _best_other(dataset: str, sheet: Sheet, decoding: str) -> _Open | Finding:
    claim = "BEAR recommends better than the best other method of the paper's Table 2"
    gain, line = sheet.gain(decoding, METRIC), sheet.line("bear")
    assert line is not None
    paper = sheet.paper_gain.get(METRIC)
    stated = f" The paper: +{paper:.2f}%." if paper is not None else ""
    if not isinstance(gain, Gain):
        return Finding(dataset=dataset, claim=claim, verdict=NOT_RUN_YET, told=f"BEAR: {gain}.{stated}")
    other = next(ln for ln in sheet.lines if ln.name == gain.versus)
    share = "from zero" if gain.relative is None else signed(gain.relative, ".2%")
    rows = sum(1 for ln in sheet.lines if ln.paper_name and decoding in ln.scores)
    values = f"{_value('BEAR', line.scores[decoding])}, {_value(gain.versus, other.scores[decoding])}"
    told = (
        f"NDCG@10: {values}, the best of the {rows - 1} others that were tested, by its value on test as in "
        f"the paper: {share}.{stated}{_otherwise(sheet, decoding)}"
    )
    key = (_folder(sheet), *sorted((gain.versus, "BEAR")))
    return _Open(dataset=dataset, claim=claim, test=gain.test, key=key, told=told)


def _otherwise(sheet: Sheet, main: str) -> str:
    """The same by the other versions of the table."""
    told = []
    for decoding in sheet.decodings:
        gain = sheet.gain(decoding, METRIC)
        if decoding != main and isinstance(gain, Gain):
            share = "from zero" if gain.relative is None else signed(gain.relative, ".2%")
            told.append(f"{decoding} {share} over {gain.versus} ({p_words(gain.test.p_value)})")
    return f" By other versions, uncorrected: {'; '.join(told)}." if told else ""


def _pair(dataset: str, sheet: Sheet, a: str, b: str, decoding: str, claim: str) -> _Open | Finding:
    first, second = sheet.line(a), sheet.line(b)
    assert first is not None and second is not None
    x, y = first.scores.get(decoding), second.scores.get(decoding)
    test = compared(x, y, METRIC)
    stated = ""
    if first.paper and second.paper:
        stated = f" The paper: {first.paper[METRIC]:.4f} and {second.paper[METRIC]:.4f}."
    if test is None or x is None or y is None:
        why = [f"{ln.name}: {ln.method.lacks(decoding)}" for ln, s in ((first, x), (second, y)) if s is None]
        told = f"{'; '.join(why) or 'They were tested on other cases'}.{stated}"
        return Finding(dataset=dataset, claim=claim, verdict=NOT_RUN_YET, told=told)
    told = f"NDCG@10: {_value(first.name, x)}, {_value(second.name, y)}.{stated}"
    key = (_folder(sheet), *sorted((first.name, second.name)))
    return _Open(dataset=dataset, claim=claim, test=test, key=key, told=told)


def _on_sdpo(material: Material, part: Part, decoding: str) -> _Open | Finding:
    claim = "BEAR's regulariser improves S-DPO"
    methods = [material.method(part, name) for name in ("sdpo_bear", "sdpo")]
    found = [method.scores.get(decoding) for method in methods]
    test = compared(found[0], found[1], METRIC)
    pairs = list(zip(methods, found, strict=True))
    if test is None:
        why = [f"{NAMES[m.name]}: {m.lacks(decoding)}" for m, scores in pairs if scores is None]
        told = f"{'; '.join(why) or 'They were tested on other cases'}."
        return Finding(dataset=part.dataset, claim=claim, verdict=NOT_RUN_YET, told=told)
    values = ", ".join(_value(NAMES[m.name], scores) for m, scores in pairs if scores is not None)
    key = (part.folder, *sorted(NAMES[method.name] for method in methods))
    return _Open(dataset=part.dataset, claim=claim, test=test, key=key, told=f"NDCG@10: {values}.")


def _close(dataset: str, sheet: Sheet, decoding: str) -> Finding:
    claim = f"Objective (3.1) itself is close to BEAR (within {CLOSE:.0%} of BEAR's NDCG@10)"
    direct, bear = sheet.line("beam_simulation"), sheet.line("bear")
    assert direct is not None and bear is not None
    x, y = direct.scores.get(decoding), bear.scores.get(decoding)
    test = compared(x, y, METRIC)
    stated = ""
    if direct.paper:
        stated = f" The paper: {direct.paper[METRIC]:.4f} and {bear.paper[METRIC]:.4f}."
    if test is None or x is None or y is None:
        why = [f"{ln.name}: {ln.method.lacks(decoding)}" for ln, s in ((direct, x), (bear, y)) if s is None]
        told = f"{'; '.join(why) or 'They were tested on other cases'}.{stated}"
        return Finding(dataset=dataset, claim=claim, verdict=NOT_RUN_YET, told=told)
    margin = CLOSE * y.cells[METRIC].mean
    verdict = OPEN
    if -margin < test.low and test.high < margin:
        verdict = HOLDS
    elif test.low > margin or test.high < -margin:
        verdict = DOES_NOT
    told = (
        f"{sheet.dataset}, NDCG@10: {_value(direct.name, x)}, {_value(bear.name, y)}; paired over "
        f"{test.users:,} users {signed(test.mean_difference, '.4f')} (95% interval "
        f"{signed(test.low, '.4f')} to {signed(test.high, '.4f')}), where close is within "
        f"±{margin:.4f}.{stated}"
    )
    return Finding(dataset=dataset, claim=claim, verdict=verdict, told=told)
