"""Training windows as token batches: what is in a step, in which order, on which worker.

The plan depends on the seed, the epoch and the windows' lengths alone, never on the number of workers: a
global batch holds the same windows however many workers share it, so a run on one worker and a run on
eight take the same optimiser steps.

A micro-batch is a tree of tokens without padding. What all its prompts begin with (the template) comes first,
once; then, window by window, the rest of the prompt and its answers: the target, and others where the
objective asks for them (negatives, rollouts). Each answer sees its prompt and itself, none sees another, so
all have the hidden states that they would have alone and nothing is computed twice.

Axis letters: L tokens of a micro-batch, R its windows, W tokens of the longest one behind the shared start, A
answers, N answer tokens that are predicted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from bearray.objectives.tokens import Answers
from bearray.tree_attention import TreeLayout
from bearray.trie import TokenTrie

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
    """A micro-batch. An answer's last token is never fed, since nothing is predicted from it."""

    input_ids: torch.Tensor
    """[L] int64: the shared start, then the windows one after the other, each with its answers in order."""
    position_ids: torch.Tensor
    """[L] int64 place of each token behind the start of its own sequence (the prompt and its answer)."""
    layout: TreeLayout
    """Whose each token is."""
    prompt_length: torch.Tensor
    """[R] int64 tokens of each window's prompt, the shared start among them."""
    position: torch.Tensor
    """[N] int64, which token's hidden state predicts each answer token."""
    targets: torch.Tensor
    """[N] int64 answer tokens."""
    nodes: torch.Tensor
    """[N] int64 trie node before each answer token."""
    instance: torch.Tensor
    """[N] int64, the answer that each token belongs to."""
    step: torch.Tensor
    """[N] int64, 0 for a title's first token."""
    answers: Answers
    """Which answers there are."""
    num_answer_tokens: int
    """Tokens of all answers: N, and the forced ones that were left out."""
    row: torch.Tensor
    """[R] int64 number of each window among the training windows; -1 where it has none."""
    without_history: TokenBatch | None = None
    """The same answers behind the prompt without a history, where the objective contrasts the two."""

    def to(self, device: torch.device | str) -> TokenBatch:
        moved: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        moved |= {
            name: x.to(device, non_blocking=True) for name, x in moved.items() if isinstance(x, torch.Tensor)
        }
        moved |= {name: moved[name].to(device) for name in ("answers", "layout")}
        if self.without_history is not None:
            moved["without_history"] = self.without_history.to(device)
        return TokenBatch(**moved)

    @property
    def title(self) -> torch.Tensor:
        """[A] int64 title of each answer."""
        return self.answers.title

    @property
    def tokens(self) -> int:
        """L."""
        return len(self.input_ids)

    def prompts(self) -> torch.Tensor:
        """[R, longest prompt] int64 where in the sequence each prompt's tokens are; behind a prompt's end
        stands anything."""
        longest = int(self.prompt_length.max()) if len(self.prompt_length) else 0
        return self.layout.full_grid[:, :longest]


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
    *,
    choices: TokenTrie | None = None,
    without_history: Sequence[int] | None = None,
) -> TokenBatch:
    """Examples as one micro-batch; of no examples, a single token that predicts nothing.

    Args:
        examples: the windows with their targets.
        pad_token_id: the token that stands for no examples.
        others: further answers of each example, any number; None: none.
        choices: the trie, on the CPU; with it, answer tokens without an alternative are left out, and an
            answer is fed only as far as its last choice needs: for objectives whose `positions` is
            "branching". None: all tokens.
        without_history: the prompt that names no history; with it, `TokenBatch.without_history` is made. It
            is one prompt with all answers behind it, so it costs little more than their tokens.

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
    steps = _predicted_steps([a for own in answers for a in own], choices)
    shared = _shared_start([e.prompt for e in examples])
    ids: list[int] = list(examples[0].prompt[:shared]) if examples else [pad_token_id]
    places = list(range(len(ids)))
    rows: list[range] = [] if examples else [range(1)]
    branches: list[list[int]] = [] if examples else [[0]]
    predicting: list[int] = []
    number = 0
    for e, own in zip(examples, answers, strict=True):
        begin, end = len(ids), len(e.prompt)
        ids += e.prompt[shared:]
        places += range(shared, end)
        branch = [0] * (end - shared)
        last = len(ids) - 1
        for k, answer in enumerate(own, 1):
            fed = steps[number][-1] if steps[number] else 0
            predicting += [last if step == 0 else len(ids) + step - 1 for step in steps[number]]
            ids += answer.tokens[:fed]
            places += range(end, end + fed)
            branch += [k] * fed
            number += 1
        rows.append(range(begin, len(ids)))
        branches.append(branch)
    flat = [(r, k == 0, a) for r, own in enumerate(answers) for k, a in enumerate(own)]

    def ints(values: Iterable[int]) -> torch.Tensor:
        return torch.tensor(list(values), dtype=torch.long)

    branch_table = right_pad(branches, -1)
    grid = right_pad(rows, 0)
    position_ids = ints(places)
    return TokenBatch(
        input_ids=ints(ids),
        position_ids=position_ids,
        layout=TreeLayout(
            shared=shared,
            grid=grid,
            flat=(branch_table >= 0).flatten().nonzero()[:, 0],
            branch=branch_table,
            place=position_ids[grid].where(branch_table >= 0, 0),
            has_answers_aside=any(len(own) > 1 for own in answers),
        ),
        prompt_length=ints(len(e.prompt) for e in examples),
        position=ints(predicting),
        targets=ints(a.tokens[s] for (_, _, a), own in zip(flat, steps, strict=True) for s in own),
        nodes=ints(a.nodes[s] for (_, _, a), own in zip(flat, steps, strict=True) for s in own),
        instance=ints(i for i, own in enumerate(steps) for _ in own),
        step=ints(s for own in steps for s in own),
        answers=Answers(
            title=ints(a.title for _, _, a in flat),
            window=ints(r for r, _, _ in flat),
            is_target=torch.tensor([first for _, first, _ in flat], dtype=torch.bool),
            length=ints(len(a.tokens) for _, _, a in flat),
            score=torch.tensor([a.score for _, _, a in flat], dtype=torch.float32),
            num_windows=len(examples),
        ),
        num_answer_tokens=sum(len(a.tokens) for _, _, a in flat),
        row=ints(e.row for e in examples),
        without_history=None
        if without_history is None
        else _behind_one(without_history, answers, pad_token_id),
    )


def _behind_one(prompt: Sequence[int], answers: Sequence[Sequence[Answer]], pad_token_id: int) -> TokenBatch:
    """All answers of a micro-batch behind one prompt, in the same order."""
    flat = [a for own in answers for a in own]
    windows = [Example(list(prompt), a.tokens, a.nodes, a.title) for a in flat[:1]]
    return collate(windows, pad_token_id, [flat[1:]] if flat else None)


def _predicted_steps(answers: Sequence[Answer], choices: TokenTrie | None) -> list[list[int]]:
    """Which tokens of each answer are predicted: all, or those with an alternative."""
    if choices is None:
        return [list(range(len(a.tokens))) for a in answers]
    nodes = torch.tensor([n for a in answers for n in a.nodes], dtype=torch.long)
    branching = iter((choices.child_count(nodes) > 1).tolist())
    return [[step for step, _ in enumerate(a.nodes) if next(branching)] for a in answers]


def _shared_start(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts begin with; each keeps at least one of its own."""
    if len(prompts) < 2:
        return 0
    # In the order of a dictionary, what the first and the last have in common, all between them have, too.
    low, high = min(map(list, prompts)), max(map(list, prompts))
    limit = min(len(p) for p in prompts) - 1
    differ = (i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b)
    return min(next(differ, limit), limit)


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
