"""A data set and a backbone put together: what is trained on, and what is asked at test time.

Every process that needs windows in tokens (training workers, evaluation actors) builds the same `Task`
from the same config, so nothing but the config travels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import pandas as pd

from bearray.backbones.base import Backbone
from bearray.backbones.load import load_tokenizer
from bearray.backbones.registry import BACKBONES
from bearray.batching import Example
from bearray.catalog import Catalog, build_catalog
from bearray.catalog_cache import load_or_encode
from bearray.config import DataConfig, RunConfig
from bearray.data import Dataset, open_dataset
from bearray.data.prompts import template_for

Split = Literal["train", "valid", "test"]


@dataclass(frozen=True)
class Case:
    """One window to decode."""

    row: int
    """Number of the window in the sampled split, the key of its prediction."""
    user: int
    prompt: list[int]
    target_item: int
    target_title: int
    """Title id of the target (`Catalog`); a hit on the title is a hit."""
    warm: bool
    """The target occurs somewhere in the training split, in a history or as a target."""
    history_titles: tuple[int, ...] = ()
    """Title ids of the history, oldest first, also of what was cut from a prompt that was too long."""


def sampled_windows(dataset: Dataset, data: DataConfig, split: Split) -> pd.DataFrame:
    """The windows of a split that a run uses, in the split's order; needs no tokens."""
    count = {"train": data.train_windows, "valid": data.valid_windows, "test": data.test_windows}[split]
    return dataset.sample(split, count, data.sample_seed)


@dataclass(frozen=True)
class Task:
    """A data set, its catalogue in the base model's tokens, and the encoder of its prompts."""

    config: RunConfig
    dataset: Dataset
    backbone: Backbone
    catalog: Catalog

    @property
    def eos_token_id(self) -> int:
        return self.backbone.eos_token_id

    @property
    def pad_token_id(self) -> int:
        return self.backbone.pad_token_id

    @cached_property
    def warm_items(self) -> frozenset[int]:
        return frozenset(int(i) for items in self.dataset.train["item_ids"] for i in items)

    def windows(self, split: Split) -> pd.DataFrame:
        """The sampled windows of a split, in the split's order."""
        return sampled_windows(self.dataset, self.config.data, split)

    def _prompts(self, windows: Sequence[Sequence[int]]) -> list[list[int]]:
        names, of = self.catalog.titles, self.catalog.title_of_item
        return self.backbone.encode_prompts([[names[of[int(i)]] for i in w[:-1]] for w in windows])

    def examples(self) -> list[Example]:
        """The training windows in tokens."""
        windows = list(self.windows("train")["item_ids"])
        titles = [self.catalog.title_of_item[int(w[-1])] for w in windows]
        nodes = self.catalog.trie.path_nodes([self.catalog.tokens[t] for t in titles])
        return [
            Example(
                prompt=prompt,
                answer=[*self.catalog.tokens[title], self.eos_token_id],
                nodes=[int(n) for n in path],
                target_title=title,
                row=row,
            )
            for row, (prompt, title, path) in enumerate(
                zip(self._prompts(windows), titles, nodes, strict=True)
            )
        ]

    def histories(self, split: Split) -> list[list[int]]:
        """Title ids of each window's history, oldest first."""
        of = self.catalog.title_of_item
        return [[of[int(item)] for item in items[:-1]] for items in self.windows(split)["item_ids"]]

    def cases(self, split: Split, rows: Sequence[int] | None = None) -> list[Case]:
        """Windows to decode, all of them or the given rows of the sampled split."""
        windows = self.windows(split)
        rows = range(len(windows)) if rows is None else rows
        users, items = windows["user_id"].to_list(), windows["item_ids"].to_list()
        title_of = self.catalog.title_of_item
        prompts = self._prompts([items[r] for r in rows])
        return [
            Case(
                row=r,
                user=int(users[r]),
                prompt=prompt,
                target_item=int(items[r][-1]),
                target_title=title_of[int(items[r][-1])],
                warm=int(items[r][-1]) in self.warm_items,
                history_titles=tuple(title_of[int(item)] for item in items[r][:-1]),
            )
            for r, prompt in zip(rows, prompts, strict=True)
        ]


def load_task(config: RunConfig) -> Task:
    """Open the data set and tokenise its catalogue, or find its tokens in this machine's cache.

    `config.model.base` must be a hub id, preset or folder here; `local:SIZE` is resolved by
    `bearray.backbones.resolve_base` first, once, and not by every worker.
    """
    dataset = open_dataset(config.data.path, strict=config.data.strict)
    template = template_for(dataset.name, config.data.domain, config.data.domain_words)
    backbone = BACKBONES[config.model.backbone](
        load_tokenizer(config.model.base), template, max_prompt_tokens=config.model.max_prompt_tokens
    )
    catalog = build_catalog(
        dataset.items,
        backbone.encode_answers,
        unescape=config.data.unescape,
        encode=partial(load_or_encode, tokenizer=backbone.tokenizer),
    )
    backbone.know(catalog.titles)
    return Task(config=config, dataset=dataset, backbone=backbone, catalog=catalog)
