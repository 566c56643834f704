"""Facts about runs that decide whether their numbers can be compared with the paper's, beside the paper's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from bearray.config import RunConfig, SASRecConfig, differences, override, to_dict
from bearray.method_names import NAMES, method_name
from bearray.paper.config import D3, PaperConfig
from bearray.paper.document.read import Material
from bearray.paper.document.sheets import Sheet
from bearray.report.published import published
from bearray.report.records import Run
from bearray.tuning.published import published_settings
from bearray.tuning.settings import method_settings

_MODELS = {"llama-3.2-3b": "Llama-3.2-3B", "llama-3.2-1b": "Llama-3.2-1B", "llama-3-8b": "Llama-3-8B"}
_BASELINE_EPOCHS = 200
_OTHER = ("model.lora_", "model.max_prompt_tokens", "train.batch_size", "train.lr", "train.warmup_steps")
"""Further settings that the paper or its code states, and that `RunConfig` has as defaults."""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One thing that decides whether two numbers can be compared."""

    about: str
    ours: str
    paper: str
    same: bool | None
    """None: it cannot be told, since the paper does not say."""


def run_facts(material: Material, runs: Sequence[Run], paper_base: str) -> list[Fact]:
    """What holds for tables and figures alike: data, models, training, seeds, choice of the checkpoint."""
    tuned = [run for run in runs if not run.is_baseline]
    facts = [data_fact(material, sorted({run.dataset for run in runs}))]
    if tuned:
        facts += [_base(tuned, paper_base), _windows(tuned), _epochs(tuned)]
        if (other := _settings(tuned)) is not None:
            facts.append(other)
    if len(tuned) < len(runs):
        facts.append(_baseline_epochs([run for run in runs if run.is_baseline]))
    seeds = sorted({run.seed for run in runs if run.seed is not None})
    facts.append(
        Fact(
            about="seeds",
            ours=", ".join(map(str, seeds)),
            paper="one run; 42 in its code",
            same=None if 42 in seeds and len(seeds) > 1 else seeds == [42],
        )
    )
    facts.append(
        Fact(
            about="checkpoint",
            ours="the epoch with the best validation NDCG@10",
            paper="the same by its text; its code takes the best epoch on test, metric by metric",
            same=None,
        )
    )
    return facts


def data_fact(material: Material, names: Iterable[str]) -> Fact:
    told, same = [], []
    for name in names:
        stats = material.stats(name)
        paper = published()["data"].get(name.casefold().removesuffix("-s"))
        if paper is None:
            told.append(f"{name}, which is not one of the paper's")
            same.append(False)
        elif name.casefold() not in published()["data"]:
            told.append(f"{name}, our own sample of users")
            same.append(False)
        else:
            own = [stats.get(key) for key in ("users", "items", "interactions")]
            equal = own == [paper[key] for key in ("users", "items", "interactions")]
            told.append(f"{name}, {'with the same' if equal else 'with other'} users, items, interactions")
            same.append(equal)
    return Fact(
        about="data", ours="; ".join(told), paper="Amazon Office, Book, Toy, Clothing", same=all(same)
    )


def _base(runs: Sequence[Run], paper: str) -> Fact:
    kinds = {run.base_model: run.base_model_kind for run in runs}
    told = ", ".join(f"{short_name(name)} ({kind})" for name, kind in sorted(kinds.items()))
    known = {_MODELS.get(short_name(name).casefold()) for name in kinds}
    same = all(name is not None and name in paper for name in known)
    same = same and not any("stand-in" in kind for kind in kinds.values())
    return Fact(about="base model", ours=told, paper=paper, same=same)


def short_name(base: str) -> str:
    """A base model's name without the folder or owner."""
    return base.rstrip("/").rpartition("/")[2]


def _name(run: Run) -> str:
    """By the objective, whatever a sweep called it."""
    return NAMES.get(run.objective) or method_name(run.method)


def _each(runs: Sequence[Run], what: Callable[[Run], Any]) -> str:
    """10; or where rows differ: 10 (SFT, MSL), 1 (S-DPO)."""
    by: dict[str, list[str]] = {}
    for run in runs:
        decoded = run.settings.get("decoding", {}).get("method")
        by.setdefault(str(what(run)), []).append(method_name(D3) if decoded == D3 else _name(run))
    if len(by) == 1:
        return next(iter(by))
    return ", ".join(f"{value} ({', '.join(dict.fromkeys(names))})" for value, names in by.items())


def _windows(runs: Sequence[Run]) -> Fact:
    def windows(run: Run) -> str:
        value = run.settings.get("data", {}).get("train_windows")
        return "all" if value is None else f"{value:,}"

    told = _each(runs, windows)
    paper = "not said; its code trains on a sample of 10,000"
    return Fact(about="training windows", ours=told, paper=paper, same=told == "10,000")


def _epochs(runs: Sequence[Run]) -> Fact:
    told = _each(runs, lambda run: run.settings.get("train", {}).get("epochs"))
    return Fact(about="epochs", ours=told, paper="10", same=told == "10")


def _baseline_epochs(runs: Sequence[Run]) -> Fact:
    def epochs(run: Run) -> Any:
        return (run.settings["baseline"].get("train") or {}).get("epochs")

    told = _each(runs, epochs)
    same = told == str(_BASELINE_EPOCHS)
    return Fact(about="baselines' epochs", ours=told, paper=str(_BASELINE_EPOCHS), same=same)


def _settings(runs: Sequence[Run]) -> Fact | None:
    """Other settings than the paper's, where there are any."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for run in runs:
        paper = _paper_settings(run.objective)
        for group in ("model", "train"):
            for line in differences(paper[group], run.settings.get(group, {}), group):
                if line.startswith(_OTHER):
                    name, _, values = line.partition(": ")
                    old, _, new = values.partition(" -> ")
                    found.setdefault((name, old, new), []).append(_name(run))
    if not found:
        return None
    every = len({_name(run) for run in runs})
    ours, theirs = [], []
    for (name, old, new), who in sorted(found.items()):
        methods = dict.fromkeys(who)
        ours.append(f"{name} {new}" + ("" if len(methods) == every else f" ({', '.join(methods)})"))
        theirs.append(f"{name} {old}")
    told = "; ".join(dict.fromkeys(theirs))
    return Fact(about="other settings", ours="; ".join(ours), paper=told, same=False)


@cache
def _paper_settings(objective: str) -> dict[str, Any]:
    """The paper's settings of an objective; its code's, where it has some."""
    texts = published_settings((objective,))
    own = method_settings(texts, {objective: objective}, RunConfig())
    return to_dict(override(RunConfig(), own.get(objective, {})))


def split_cases_fact(sheets: Sequence[Sheet]) -> Fact:
    found = {}
    for s in sheets:
        n = max(scores.n for line in s.lines for scores in line.scores.values())
        found[s.dataset] = (n, s.paper_n)
    return _cases(found)


def run_cases_fact(runs: Sequence[Run]) -> Fact:
    stated = published()["test_cases"]
    found = {}
    for run in runs:
        for frame in list(run.predictions.values())[:1]:
            found[run.dataset] = (len(frame), stated.get(run.dataset.casefold()))
    return _cases(found)


def _cases(found: Mapping[str, tuple[int, int | None]]) -> Fact:
    """Test cases, ours and the paper's, by data set."""
    ours = ", ".join(f"{name} {n:,}" for name, (n, _) in found.items())
    paper = ", ".join(f"{name} {n:,}" for name, (_, n) in found.items() if n is not None)
    same = all(own == stated for own, stated in found.values())
    return Fact(about="test cases", ours=ours, paper=paper or "none of these", same=same)


def decoder_fact(config: PaperConfig, runs: Sequence[Run]) -> Fact:
    tuned = [run for run in runs if not run.is_baseline]
    penalties = sorted({float(r.settings.get("decoding", {}).get("length_penalty", 0.0)) for r in tuned})
    widths = sorted({int(r.settings.get("decoding", {}).get("beam_width", 10)) for r in tuned})
    own = "the valid next tokens" if config.run.decoding.normalize == "trie" else "the vocabulary"
    told = (
        f"every row with the softmax over {own}, beam width {', '.join(map(str, widths)) or 10}, length "
        f"penalty {', '.join(f'{p:g}' for p in penalties) or 0}; other versions are marked"
    )
    paper = (
        "the BIGRec row with the softmax over the vocabulary, MSL and BEAR over the valid next tokens; beam "
        "width 10; length penalty 0 by its text, 1 in its code"
    )
    return Fact(about="decoder", ours=told, paper=paper, same=False)


def sample_fact(material: Material, sheets: Sequence[Sheet]) -> Fact:
    def users(s: Sheet) -> str:
        found = material.stats(s.dataset).get("users")
        return f"{s.dataset} {found:,}" if isinstance(found, int) else f"{s.dataset} unknown"

    told = ", ".join(users(s) for s in sheets)
    stated = published()["sample"]
    paper = f"{stated['users']:,} sampled users; its numbers fit {stated['test_cases']} test cases"
    same = None if all(material.stats(s.dataset).get("users") == stated["users"] for s in sheets) else False
    return Fact(about="sampled users", ours=told, paper=paper, same=same)


def text_free_fact(sheets: Sequence[Sheet]) -> Fact | None:
    """The model without text of D3, and of objectives that ask one in training; None without them."""
    told = []
    for sheet in sheets:
        line = sheet.line(D3)
        for run in line.method.tested[:1] if line else ():
            told.append(f"{sheet.dataset}: D3 {_d3_words(run, sheet)}")
    asking = {
        _name(run)
        for sheet in sheets
        for line in sheet.lines
        for run in line.method.tested
        if _asks_sasrec(run.settings.get("objective") or {})
    }
    if asking:
        told.append(f"{', '.join(sorted(asking))} in training: SASRec of {_BASELINE_EPOCHS} epochs")
    if not told:
        return None
    paper = "D3's alpha and SASRec's training for it not given"
    return Fact(about="model without text", ours="; ".join(told), paper=paper, same=None)


def _d3_words(run: Run, sheet: Sheet) -> str:
    """alpha 0.9, SASRec of 20 epochs, the row's own of that seed (validation NDCG@10 0.0402)."""
    decoding = run.settings.get("decoding") or {}
    alpha = f"alpha {decoding.get('d3_alpha')}"
    if decoding.get("d3_scores") != "sasrec":
        return f"{alpha}, popularity in training"
    epochs = decoding.get("d3_sasrec_epochs") or _BASELINE_EPOCHS
    words = f"{alpha}, SASRec of {epochs} epochs"
    line = sheet.line("sasrec")
    for row in line.method.tested if line else ():
        train = row.settings["baseline"].get("train") or {}
        score = ((row.result or {}).get("valid") or {}).get("ndcg@10")
        same = (train.get("epochs"), train.get("seed")) == (epochs, SASRecConfig().train.seed)
        if same and score is not None:
            return f"{words}, the row's own of that seed (validation NDCG@10 {score:.4f})"
    return f"{words}, which is not the row's"


def _asks_sasrec(objective: Mapping[str, Any]) -> bool:
    name = objective.get("name")
    oracle = name == "rosepo" and objective.get("smoothing", 0.0) is None
    return oracle or (name == "flower" and objective.get("personalised", True))
