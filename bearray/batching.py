"""Training windows as token batches: what is in a step, in which order, on which worker.

The plan depends on the seed, the epoch and the windows' lengths alone, never on the number of workers: a
global batch holds the same windows however many workers share it, so a run on one worker and a run on
eight take the same optimiser steps.

A row of a micro-batch is a window: its prompt once, then its target. An objective that asks for more answers
(negatives, rollouts) gets them as further branches behind the same prompt: each sees the prompt and itself,
none sees another, so every answer has the hidden states that it would have alone and the prompt is paid for
once.

Axis letters: R rows of a micro-batch, T tokens of the longest row, A answers, N answer tokens of the
micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from bearray.objectives.tokens import Answers

CHUNK_BATCHES = 32
"""Windows are sorted by length within this many global batches: little padding, and an order that stays
random."""


@dataclass(frozen=True)
class Answer:
    """A title as an answer, other than the target."""

    tokens: list[int]
    """The title's tokens, then end-of-sequence."""
    nodes: list[int]
    """The trie node before each of them."""
    title: int
    """Which title (`Catalog` index)."""
    score: float = 0.0
    """The log-probability under which it was decoded; 0 if it was not."""


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
    row: int = -1
    """Number of the window among the training windows."""


@dataclass
class TokenBatch:
    """A micro-batch. Prompt and target of a row follow each other without a gap, then come its other answers;
    rows are padded on the right."""

    input_ids: torch.Tensor
    """[R, T] int64; an answer's last token is never fed, since nothing is predicted from it."""
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
    """[N] int64, the answer that each token belongs to; the row, where there are only targets."""
    step: torch.Tensor
    """[N] int64, 0 for a title's first token."""
    answers: Answers
    """Which answers there are."""
    row: torch.Tensor
    """[R] int64 number of each row's window among the training windows; -1 where it has none."""
    position_ids: torch.Tensor | None = None
    """[R, T] int64 place of each token behind the start of its own sequence (the prompt and its answer); None
    where rows hold only targets and it is the column."""
    branch: torch.Tensor | None = None
    """[R, T] int64: 0 in the prompt, k in the row's k-th answer (from 1), -1 in padding; None where rows hold
    only targets."""

    def to(self, device: torch.device | str) -> TokenBatch:
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        moved |= {
            name: x.to(device, non_blocking=True) for name, x in moved.items() if isinstance(x, torch.Tensor)
        }
        return TokenBatch(**(moved | {"answers": self.answers.to(device)}))

    @property
    def title(self) -> torch.Tensor:
        """[A] int64 title of each answer."""
        return self.answers.title

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


def collate(
    examples: Sequence[Example],
    pad_token_id: int,
    others: Sequence[Sequence[Answer]] | None = None,
) -> TokenBatch:
    """Examples as one right-padded micro-batch; of no examples, a single padding row that predicts
    nothing.

    Args:
        examples: the windows with their targets.
        pad_token_id: fills rows up.
        others: further answers of each example, any number; None: none.

    Raises:
        ValueError: `others` is not one list for each example.
    """
    if others is None:
        others = [[] for _ in examples]
    if len(others) != len(examples):
        raise ValueError(f"there are {len(examples)} examples, but other answers for {len(others)}")
    answers = [
        [Answer(e.answer, e.nodes, e.target_title), *more] for e, more in zip(examples, others, strict=True)
    ]
    ids: list[list[int]] = []
    places: list[list[int]] = []
    branches: list[list[int]] = []
    predicting: list[tuple[int, int]] = []  # row and column of the state that predicts each answer token
    for r, (e, own) in enumerate(zip(examples, answers, strict=True)):
        end = len(e.prompt)
        ids.append(list(e.prompt))
        places.append(list(range(end)))
        branches.append([0] * end)
        for number, answer in enumerate(own, 1):
            begin, fed = len(ids[r]), len(answer.tokens) - 1
            ids[r] += answer.tokens[:-1]
            places[r] += range(end, end + fed)
            branches[r] += [number] * fed
            predicting += [(r, end - 1), *((r, c) for c in range(begin, begin + fed))]
    ids = ids or [[pad_token_id]]  # also the padding row is attended to: softmax over nothing would be NaN
    input_ids = right_pad(ids, pad_token_id)
    width = input_ids.shape[1]
    flat = [(r, k == 0, a) for r, own in enumerate(answers) for k, a in enumerate(own)]

    def ints(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long)

    return TokenBatch(
        input_ids=input_ids,
        attention_mask=right_pad([[1] * len(row) for row in ids], 0),
        position=ints([r * width + c for r, c in predicting]),
        targets=ints([t for _, _, a in flat for t in a.tokens]),
        nodes=ints([n for _, _, a in flat for n in a.nodes]),
        instance=ints([i for i, (_, _, a) in enumerate(flat) for _ in a.tokens]),
        step=ints([k for _, _, a in flat for k in range(len(a.tokens))]),
        answers=Answers(
            title=ints([a.title for _, _, a in flat]),
            window=ints([r for r, _, _ in flat]),
            is_target=torch.tensor([first for _, first, _ in flat], dtype=torch.bool),
            length=ints([len(a.tokens) for _, _, a in flat]),
            score=torch.tensor([a.score for _, _, a in flat], dtype=torch.float32),
            num_windows=len(examples),
        ),
        row=ints([e.row for e in examples]),
        position_ids=right_pad(places, 0) if any(others) else None,
        branch=right_pad(branches, -1) if any(others) else None,
    )


def right_pad(rows: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
    """Rows as one int64 table, filled up on the right to the longest of them."""
    table = torch.full((len(rows), max(len(row) for row in rows)), fill, dtype=torch.long)
    for r, row in enumerate(rows):
        table[r, : len(row)] = torch.tensor(row, dtype=torch.long)
    return table


def left_pad(prompts: Sequence[Sequence[int]], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts as decoders take them: input_ids and attention_mask [U, T], padded on the left."""
    width = max(len(p) for p in prompts)
    input_ids = torch.full((len(prompts), width), pad_token_id, dtype=torch.long)
    attention_mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for r, prompt in enumerate(prompts):
        input_ids[r, width - len(prompt) :] = torch.tensor(prompt)
        attention_mask[r, width - len(prompt) :] = 1
    return input_ids, attention_mask
