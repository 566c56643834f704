"""Training windows as token batches: what is in a step, in which order, on which worker.

The plan depends on the seed, the epoch and the windows' lengths alone, never on the number of workers: a
global batch holds the same windows however many workers share it, so a run on one worker and a run on
eight take the same optimiser steps.

Axis letters: R rows of a micro-batch, T tokens of the longest row, N answer tokens of the micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

CHUNK_BATCHES = 32
"""Windows are sorted by length within this many global batches: little padding, and an order that stays
random."""


@dataclass(frozen=True)
class Example:
    """One training window in tokens."""

    prompt: list[int]
    answer: list[int]
    """The title's tokens, then end-of-sequence."""
    nodes: list[int]
    """The trie node before each answer token, as long as `answer`."""
    target_title: int
    """Which title the answer spells (`Catalog` index)."""


@dataclass
class TokenBatch:
    """A micro-batch. Prompts and answers of a row follow each other without a gap; rows are padded on the
    right."""

    input_ids: torch.Tensor
    """[R, T] int64; the last answer token is never fed, since nothing is predicted from it."""
    attention_mask: torch.Tensor
    """[R, T] int64."""
    position: torch.Tensor
    """[N] int64, where in the flattened [R * T] grid the hidden state that predicts each answer token
    stands."""
    targets: torch.Tensor
    """[N] int64 answer tokens."""
    nodes: torch.Tensor
    """[N] int64 trie node before each answer token."""
    instance: torch.Tensor
    """[N] int64, the row of each answer token."""
    step: torch.Tensor
    """[N] int64, 0 for a title's first token."""
    title: torch.Tensor
    """[R] int64 target title of each row."""

    def to(self, device: torch.device | str) -> TokenBatch:
        return TokenBatch(
            **{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        )

    @property
    def tokens(self) -> int:
        """Tokens that are no padding."""
        return int(self.attention_mask.sum())


def plan_epoch(lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
    """The global batches of an epoch: arrays of window numbers, each window once.

    Windows are shuffled, sorted by length within chunks of `CHUNK_BATCHES` batches, and the batches' order is
    shuffled again, so that long and short batches alternate. The last batch may be smaller than the others.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    size = np.asarray(lengths)
    batches: list[np.ndarray] = []
    for start in range(0, len(order), batch_size * CHUNK_BATCHES):
        chunk = order[start : start + batch_size * CHUNK_BATCHES]
        chunk = chunk[np.argsort(size[chunk], kind="stable")]
        batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def split_batch(batch: np.ndarray, *, num_workers: int, rank: int, rounds: int) -> list[np.ndarray]:
    """One worker's micro-batches of a global batch: `rounds` of them, some perhaps empty.

    Every worker has the same number of rounds in every step, because each ends in a collective. Rows are
    dealt in order of length, so each micro-batch holds rows of like length.
    """
    cuts = np.array_split(batch, rounds * num_workers)
    return [cuts[r * num_workers + rank] for r in range(rounds)]


def collate(examples: Sequence[Example], pad_token_id: int) -> TokenBatch:
    """Examples as one right-padded micro-batch; of no examples, a single padding row that predicts
    nothing."""
    rows = [e.prompt + e.answer[:-1] for e in examples] or [[pad_token_id]]
    width = max(len(row) for row in rows)
    input_ids = torch.full((len(rows), width), pad_token_id, dtype=torch.long)
    attention_mask = torch.zeros((len(rows), width), dtype=torch.long)
    for r, row in enumerate(rows):  # also the padding row is attended to: softmax over nothing would be NaN
        input_ids[r, : len(row)] = torch.tensor(row)
        attention_mask[r, : len(row)] = 1
    position = [
        r * width + len(e.prompt) - 1 + k for r, e in enumerate(examples) for k in range(len(e.answer))
    ]
    return TokenBatch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position=torch.tensor(position, dtype=torch.long),
        targets=torch.tensor([t for e in examples for t in e.answer], dtype=torch.long),
        nodes=torch.tensor([n for e in examples for n in e.nodes], dtype=torch.long),
        instance=torch.tensor([r for r, e in enumerate(examples) for _ in e.answer], dtype=torch.long),
        step=torch.tensor([k for e in examples for k in range(len(e.answer))], dtype=torch.long),
        title=torch.tensor([e.target_title for e in examples], dtype=torch.long),
    )


def left_pad(prompts: Sequence[Sequence[int]], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts as decoders take them: input_ids and attention_mask [U, T], padded on the left."""
    width = max(len(p) for p in prompts)
    input_ids = torch.full((len(prompts), width), pad_token_id, dtype=torch.long)
    attention_mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for r, prompt in enumerate(prompts):
        input_ids[r, width - len(prompt) :] = torch.tensor(prompt)
        attention_mask[r, width - len(prompt) :] = 1
    return input_ids, attention_mask
