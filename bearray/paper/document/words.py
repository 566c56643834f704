"""What is comparable with the paper and what is not, for every table and figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bearray.paper.document.facts import (
    Fact,
    data_fact,
    decoder_fact,
    run_cases_fact,
    run_facts,
    sample_fact,
    split_cases_fact,
    text_free_fact,
)
from bearray.paper.document.read import Material
from bearray.paper.document.sheets import Sheet
from bearray.report.records import Run
from bearray.report.rows import value_of

_BASES = {2: "Llama-3.2-3B", 3: "Llama-3.2-3B", 4: "Llama-3.2-1B and Llama-3-8B", 5: "Llama-3.2-3B"}


def sentence(facts: Sequence[Fact]) -> str:
    """The facts in one sentence or three."""
    if not facts:
        return "Nothing of it was run, so nothing is compared."
    alike = [fact.about for fact in facts if fact.same is True]
    other = [fact.about for fact in facts if fact.same is False]
    unsaid = [fact.about for fact in facts if fact.same is None]
    if other:
        text = (
            f"Not comparable with the paper number by number: {_list(other)} differ{'s' * (len(other) == 1)}."
        )
    else:
        text = "Comparable with the paper as far as it says what it did."
    text += f" The same: {_list(alike)}." if alike else ""
    return text + (f" Cannot be told: {_list(unsaid)}." if unsaid else "")


def table_1_facts(material: Material) -> list[Fact]:
    """Whether the data are the paper's."""
    if not material.data:
        return []
    return [data_fact(material, [n for n in material.config.datasets if n in material.data])]


def sheet_facts(material: Material, table: int, sheets: Sequence[Sheet]) -> list[Fact]:
    """Facts about Table 2, 3, 4 or 5."""
    shown = [s for s in sheets if s.any]
    runs = [run for s in shown for line in s.lines for run in line.method.tested]
    if not runs:
        return []
    facts = [
        *run_facts(material, runs, _BASES[table]),
        split_cases_fact(shown),
        decoder_fact(material.config, runs),
    ]
    methods = [line.method for s in shown for line in s.lines if line.method.name == "bear"]
    trials = Counter(method.trials for method in methods if method.tested)
    if trials:
        settings = "; ".join(
            f"{s.dataset}{f' {s.block}' if s.block else ''} lambda {value_of(run, 'objective.lam')}, xi "
            f"{value_of(run, 'objective.xi')}"
            for s in shown
            if (line := s.line("bear")) and (run := next(iter(line.method.tested), None))
        )
        told = " or ".join(f"{n} trial{'s' * (n != 1)}" for n in sorted(trials))
        facts.append(
            Fact(
                about="lambda/xi",
                ours=f"{told} on validation; chosen: {settings}",
                paper="in [0.1, 5.0] and [0.25, 3.0]; number of trials and values not given",
                same=None,
            )
        )
    if (text_free := text_free_fact(shown)) is not None:
        facts.append(text_free)
    if table == 5:
        facts.append(sample_fact(material, shown))
    return facts


def figure_facts(material: Material, number: int, runs: Sequence[Run]) -> list[Fact]:
    """Facts about a figure."""
    if not runs:
        return []
    facts = run_facts(material, list(runs), "Llama-3.2-3B")
    if number == 8:
        facts.append(Fact(about="split", ours="validation", paper="not said", same=None))
    elif number in (3, 4, 6):
        told = "the rank among all titles (exact), or among those that beam search found (pool)"
        paper = "rank among 'candidates', which are not defined"
        facts.append(Fact(about="what deserves a place", ours=told, paper=paper, same=None))
        facts.append(decoder_fact(material.config, runs))
    elif number in (5, 9):
        machine = "see the notes below the figure; one epoch extrapolated from its steps"
        facts.append(Fact(about="machine", ours=machine, paper="8 RTX 5090", same=False))
        facts.append(decoder_fact(material.config, runs))
        facts.append(run_cases_fact(runs))
    else:
        facts += [run_cases_fact(runs), decoder_fact(material.config, runs)]
    return facts


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
