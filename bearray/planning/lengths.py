"""A data set's windows and their lengths in tokens, by the base model's tokenizer or, without it, by
characters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean

import torch

from bearray.backbones.presets import LOCAL_PREFIX
from bearray.batching import collate
from bearray.config import RunConfig
from bearray.data import Dataset, clean_title, open_dataset
from bearray.data.prompts import render_prompt, template_for
from bearray.errors import ModelError
from bearray.planning.work import Work
from bearray.task import Split, Task, load_task, sampled_windows

SPLITS: tuple[Split, ...] = ("train", "valid", "test")
CHARACTERS = 4.0
"""Of a token: a rule of thumb for English text, where the tokenizer is not at hand."""


def work_of(config: RunConfig) -> Work:
    """The work of a run on its data (`config.data.path`), at its numbers of windows.

    Lengths are of all its training windows where the base model's tokenizer is on this machine; else they are
    guessed from characters, and `Work.source` says so.

    Raises:
        BearrayError: the data set cannot be used.
    """
    dataset = open_dataset(config.data.path, strict=config.data.strict)
    train, valid, test = (max(1, len(sampled_windows(dataset, config.data, split))) for split in SPLITS)
    windows = Work(train_windows=train, valid_windows=valid, test_windows=test)
    task = None if config.model.base.startswith(LOCAL_PREFIX) else _task(config)
    return _by_characters(config, dataset, windows) if task is None else _by_tokenizer(task, windows)


def _task(config: RunConfig) -> Task | None:
    """The data in tokens; None where the base model has no tokenizer here."""
    try:
        return load_task(config)
    except ModelError:
        return None


def _by_tokenizer(task: Task, windows: Work) -> Work:
    examples = task.examples()
    prompts, answers = [len(e.prompt) for e in examples], [len(e.answer) for e in examples]
    trie = task.catalog.trie
    return replace(
        windows,
        prompt_tokens=mean(prompts),
        shared_tokens=collate(examples, task.pad_token_id).layout.shared,
        answer_tokens=mean(answers),
        longest_prompt=max(prompts),
        longest_answer=max(answers),
        choices=int(trie.child_count(torch.arange(len(trie))).max()),
        titles=len(task.catalog),
        source=f"{task.dataset.name}, by the tokenizer of {task.config.model.base}",
    )


def _by_characters(config: RunConfig, dataset: Dataset, windows: Work) -> Work:
    template = template_for(dataset.name, config.data.domain, config.data.domain_words)
    titles = {
        int(i): clean_title(str(t), unescape=config.data.unescape)
        for i, t in zip(dataset.items["item_id"], dataset.items["title"], strict=True)
    }
    histories = [
        [titles[int(i)] for i in w] for w in sampled_windows(dataset, config.data, "train")["item_ids"]
    ]
    texts = [render_prompt(template, h[:-1]) for h in histories]
    prompts = [_tokens(text) for text in texts]
    if config.model.max_prompt_tokens is not None:
        prompts = [min(p, config.model.max_prompt_tokens) for p in prompts]
    answers = [_tokens(f'"{h[-1]}"') + 1 for h in histories]
    return replace(
        windows,
        prompt_tokens=mean(prompts),
        shared_tokens=min(_shared(texts) / CHARACTERS, mean(prompts)),
        answer_tokens=mean(answers),
        longest_prompt=max(prompts),
        longest_answer=max(answers),
        choices=_first_words(list(titles.values())),
        titles=len(set(titles.values())),
        source=f"{dataset.name}, guessed from characters ({CHARACTERS:.0f} a token): no tokenizer of "
        f"{config.model.base} on this machine",
    )


def _shared(texts: Sequence[str]) -> int:
    """Characters that all begin with."""
    low, high = min(texts), max(texts)  # in the order of a dictionary, all others are between them
    return next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))


def _tokens(text: str) -> int:
    return max(1, round(len(text) / CHARACTERS))


def _first_words(titles: Sequence[str]) -> int:
    return max(1, len({title.split(" ")[0] for title in titles}))
