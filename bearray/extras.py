"""What objectives need beyond logits and trie, computed once from the training split: counts, entropies and
flows."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import pandas as pd
import torch

from bearray.batching import TokenBatch
from bearray.objectives.flow import Flow
from bearray.objectives.igd import information_gain, node_entropy
from bearray.task import Task
from bearray.trie import TokenTrie

UserScores = Callable[[torch.Tensor], torch.Tensor]
"""A text-free model's scores of all titles: numbers of training windows [R] -> [R, titles]."""

MADE_BY_THE_STEP = frozenset({"trie", "thresholds", "reference", "negatives", "without_history"})
"""What `TrainStep` and the loop make, not `Extras`."""
PROVIDED = MADE_BY_THE_STEP | {"popularity", "information_gain", "flow", "stop_flow", "user_scores"}
"""Everything that an objective may ask for in `Objective.needs`."""


def interaction_counts(train: pd.DataFrame, title_of_item: dict[int, int], titles: int) -> np.ndarray:
    """How often each title was interacted with in training, [titles] int64.

    Windows of a user overlap, so the first one counts whole and each later one adds its target only.
    """
    windows = train.sort_values(["user_id", "timestamp"], kind="stable")
    first = ~windows["user_id"].duplicated().to_numpy()
    counts = np.zeros(titles, dtype=np.int64)
    for items, whole in zip(windows["item_ids"], first, strict=True):
        for item in items if whole else items[-1:]:
            counts[title_of_item[int(item)]] += 1
    return counts


def training_counts(task: Task) -> np.ndarray:
    """`interaction_counts` of a task: [titles] int64."""
    return interaction_counts(task.dataset.train, task.catalog.title_of_item, len(task.catalog.titles))


class Extras:
    """Values of a batch by name, per token and per window.

    Args:
        task: where the counts come from.
        trie: the catalogue's trie on the training device.
        needs: which values the objective asks for; others are not computed.
        user_scores: gives "user_scores"; None where there is no such model.
    """

    def __init__(
        self, task: Task, trie: TokenTrie, needs: Collection[str], user_scores: UserScores | None = None
    ) -> None:
        self.needs = frozenset(needs) - MADE_BY_THE_STEP
        self.user_scores = user_scores
        self.provided = PROVIDED if user_scores is not None else PROVIDED - {"user_scores"}
        if self.needs & {"popularity", "information_gain", "flow", "stop_flow"}:
            self.popularity = torch.from_numpy(training_counts(task)).to(trie.device)
        if "information_gain" in self.needs:
            self.entropy = node_entropy(trie, self.popularity)
        if self.needs & {"flow", "stop_flow"}:
            self.flow = Flow.of(trie, self.popularity)

    def __call__(self, batch: TokenBatch) -> dict[str, torch.Tensor]:
        """[N] values for each answer token of the batch."""
        values = {}
        if "popularity" in self.needs:
            values["popularity"] = self.popularity[batch.title][batch.instance]
        if "information_gain" in self.needs:
            values["information_gain"] = information_gain(self.entropy, batch.nodes, batch.instance)
        if self.needs & {"flow", "stop_flow"}:
            values["flow"], values["stop_flow"] = self.flow.of_tokens(batch.nodes, batch.instance)
        return values

    def of_windows(self, batch: TokenBatch) -> dict[str, torch.Tensor]:
        """[R, ...] values for each window of the batch."""
        if "user_scores" not in self.needs or self.user_scores is None:
            return {}
        return {"user_scores": self.user_scores(batch.row)}
