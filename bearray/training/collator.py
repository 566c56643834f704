"""Windows by number as micro-batches of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from bearray.backbones.soft import blanked
from bearray.batching import Answer, Example, TokenBatch, collate
from bearray.objectives import Objective
from bearray.task import Task

Others = list[list[Answer]] | None
"""Of each window of a micro-batch the answers beside its target; None: none."""


class Collator:
    """Lays windows out as the model reads them, on its device.

    Args:
        task: the run's data in tokens.
        examples: its training windows.
        objective: of the run; one that contrasts the prompt that names no history gets that, too.
        device: of the model.
    """

    def __init__(
        self, task: Task, examples: Sequence[Example], objective: Objective, device: torch.device
    ) -> None:
        self.task, self.examples, self.device = task, examples, device
        contrasts = "without_history" in objective.needs
        self.blank_prompt = task.backbone.encode_without_history() if contrasts else None

    def __call__(
        self, rows: Sequence[int] | np.ndarray, others: Others, loss: Objective, *, hybrid: bool
    ) -> TokenBatch:
        """A micro-batch.

        Args:
            rows: its windows.
            others: of each of them.
            loss: of the round under way; it tells which tokens must be there.
            hybrid: with soft tokens, which are blank otherwise.
        """
        batch = collate(
            [self.examples[i] for i in rows],
            self.task.pad_token_id,
            others,
            choices=self.task.catalog.trie if loss.positions == "branching" else None,
            without_history=self.blank_prompt,
        )
        if not hybrid:
            batch.input_ids = blanked(batch.input_ids)
        return batch.to(self.device)

    def alone(
        self, parts: Sequence[np.ndarray], others: Sequence[Others], loss: Objective, *, hybrid: bool
    ) -> Iterator[tuple[int, TokenBatch]]:
        """Of each window of some micro-batches: its row, and the batch of this window alone."""
        for part, more in zip(parts, others, strict=True):
            for i, row in enumerate(part):
                yield int(row), self([row], None if more is None else [more[i]], loss, hybrid=hybrid)
