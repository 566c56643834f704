"""A recommender that knows items by number, with all seeds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bearray.baselines.registry import baseline
from bearray.config import DataConfig, LanguageModelConfig, RunConfig, config_hash, override, to_dict
from bearray.evaluation.baseline_run import train_and_test
from bearray.paper.config import PaperConfig
from bearray.paper.data import data_folder
from bearray.paper.parts import Part
from bearray.paper.steps.step import Decodings, Step, trained_run
from bearray.paper.stored import BASELINES
from bearray.paper.sweeps import part_base
from bearray.runs import Storage, absolute
from bearray.trained import RESULT
from bearray.tuning.cluster import connect

_UNPRICED = {
    "none": "",
    "teacher": " and vectors of titles",
    "chains": ", vectors of titles and chains of thought",
}
"""What a language model does for a baseline, beside what is estimated."""


def baseline_step(config: PaperConfig, dataset: str, method: str) -> Step:
    part = Part(dataset, "bigrec", config.base_model)
    entry = baseline(method)
    data = _baseline_data(config.run, absolute(str(data_folder(config, part))))

    def settings(seed: int) -> Any:
        epochs = {} if config.baseline_epochs is None else {"train.epochs": config.baseline_epochs}
        chains = {"chains": config.chains} if method == "llm-cf" and config.chains is not None else {}
        return override(entry.config(), {**epochs, **chains, "train.seed": seed})

    def place(seed: int) -> Storage:
        what = config_hash([to_dict(settings(seed)), to_dict(data) | {"path": ""}, part.base], 6)
        return Storage(config.storage).child(dataset, BASELINES, f"{method}-{seed}-{what}")

    def do() -> None:
        for seed in config.seeds:
            if place(seed).exists(RESULT):
                continue
            teacher = None
            if entry.llm == "teacher":
                teacher = trained_run(config, part, "sft", config.seeds[0]).folder.root
            actors = config.run.evaluation.actors
            llm = LanguageModelConfig(base_model=part_base(config, part), teacher=teacher, actors=actors)
            train_and_test(method, settings(seed), data, place(seed), llm=llm, connect=connect)

    def done() -> int:
        return sum(place(seed).exists(RESULT) for seed in config.seeds)

    def decodes() -> Decodings:
        """The teacher's lists serve all seeds."""
        return Decodings(train=int(done() == 0))

    return Step(
        title=f"train and test {method}",
        part=part,
        runs=lambda: len(config.seeds),
        done=done,
        do=do,
        decodes=decodes if entry.llm == "teacher" else None,
        unpriced=f"its own training{_UNPRICED[entry.llm]}",
    )


def _baseline_data(run: RunConfig, path: str) -> DataConfig:
    """The test windows are those of the LLM recommenders; training and validation splits are taken whole."""
    return replace(run.data, path=path, train_windows=None, valid_windows=None, domain="auto")
