"""What objectives need beyond logits and trie, computed once from the training split: counts and
entropies."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd
import torch

from bearray.batching import TokenBatch
from bearray.objectives.igd import information_gain, node_entropy
from bearray.task import Task
from bearray.trie import TokenTrie

PROVIDED = frozenset({"trie", "popularity", "information_gain", "thresholds"})
"""Everything that an objective may ask for in `Objective.needs`; `TrainStep` makes the thresholds itself."""


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


class Extras:
    """Per-token values of a batch, by name.

    Args:
        task: where the counts come from.
        trie: the catalogue's trie on the training device.
        needs: which values the objective asks for; others are not computed.
    """

    def __init__(self, task: Task, trie: TokenTrie, needs: Collection[str]) -> None:
        self.needs = frozenset(needs) - {"trie", "thresholds"}
        if not self.needs:
            return
        counts = interaction_counts(task.dataset.train, task.catalog.title_of_item, len(task.catalog.titles))
        self.popularity = torch.from_numpy(counts).to(trie.device)
        self.entropy = node_entropy(trie, self.popularity)

    def __call__(self, batch: TokenBatch) -> dict[str, torch.Tensor]:
        """[N] values for each answer token of the batch."""
        values = {}
        if "popularity" in self.needs:
            values["popularity"] = self.popularity[batch.title][batch.instance]
        if "information_gain" in self.needs:
            values["information_gain"] = information_gain(self.entropy, batch.nodes, batch.instance)
        return values
