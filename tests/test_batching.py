"""Batches: each window once, the same steps for any number of workers, the right targets."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bearray.batching import CHUNK_BATCHES, Example, collate, left_pad, plan_epoch, split_batch

PAD = 0
LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=400)
TOKENS = st.lists(st.integers(1, 99), min_size=1, max_size=9)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    answer = draw(TOKENS)
    return Example(
        prompt=draw(TOKENS), answer=answer, nodes=[100 + k for k in range(len(answer))], target_title=7
    )


@given(lengths=LENGTHS, batch_size=st.integers(1, 50), seed=st.integers(0, 9), epoch=st.integers(0, 5))
def test_epoch_has_each_window_once_in_full_batches_but_one(lengths, batch_size, seed, epoch):
    plan = plan_epoch(lengths, batch_size, seed=seed, epoch=epoch)
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(lengths)))
    sizes = sorted(len(batch) for batch in plan)
    assert len(plan) == -(-len(lengths) // batch_size)  # what the learning rate schedule counts on
    assert all(size == batch_size for size in sizes[1:]) and 1 <= sizes[0] <= batch_size


def test_plan_depends_on_seed_and_epoch_alone():
    lengths = np.random.default_rng(0).integers(10, 200, 300)

    def flat(seed, epoch):
        return np.concatenate(plan_epoch(lengths, 16, seed=seed, epoch=epoch)).tolist()

    assert flat(1, 0) == flat(1, 0)
    assert flat(1, 0) != flat(1, 1)
    assert flat(1, 0) != flat(2, 0)


def test_batches_hold_windows_of_like_length_and_their_order_does_not_follow_it():
    lengths = np.random.default_rng(0).integers(10, 500, 32 * CHUNK_BATCHES)
    plan = plan_epoch(lengths, 32, seed=0, epoch=0)
    padded = sum(len(batch) * lengths[batch].max() for batch in plan)
    assert padded / lengths.sum() < 1.05  # a random order pads to about 1.9 here
    means = [lengths[batch].mean() for batch in plan]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5


@given(
    batch=st.lists(st.integers(0, 999), min_size=1, max_size=70, unique=True),
    workers=st.integers(1, 9),
    rounds=st.integers(1, 5),
)
def test_workers_share_a_batch_without_loss_or_overlap(batch, workers, rounds):
    parts = [
        split_batch(np.array(batch), num_workers=workers, rank=rank, rounds=rounds) for rank in range(workers)
    ]
    assert all(len(own) == rounds for own in parts)  # each round ends in a collective
    assert sorted(np.concatenate([p for own in parts for p in own]).tolist()) == sorted(batch)
    sizes = [len(p) for own in parts for p in own]
    assert max(sizes) - min(sizes) <= 1


@given(rows=st.lists(examples(), min_size=1, max_size=6), start=st.lists(st.integers(1, 99), max_size=5))
def test_positions_predict_the_right_tokens(rows, start):
    rows = [replace(e, prompt=start + e.prompt) for e in rows]
    batch = collate(rows, PAD)
    shared, layout = batch.layout.shared, batch.layout
    assert len(rows) == 1 or shared >= len(start)
    assert batch.tokens == shared + sum(len(e.prompt) - shared + len(e.answer) - 1 for e in rows)
    answers = [(r, k, e) for r, e in enumerate(rows) for k in range(len(e.answer))]
    assert len(answers) == len(batch.position) == len(batch.targets) == batch.num_answer_tokens
    for n, (r, k, e) in enumerate(answers):
        place = int(batch.position[n])
        assert (int(batch.instance[n]), int(batch.step[n])) == (r, k)
        column = shared + layout.grid[r].tolist().index(place)
        read = batch.input_ids[layout.full_grid[r, : column + 1]].tolist()
        assert read == e.prompt + e.answer[:k]  # all that came before, and nothing else
        assert int(batch.position_ids[place]) == len(read) - 1
        assert int(batch.targets[n]) == e.answer[k]
        assert int(batch.nodes[n]) == e.nodes[k]
    assert batch.title.tolist() == [7] * len(rows)
    assert batch.prompt_length.tolist() == [len(e.prompt) for e in rows]
    for r, e in enumerate(rows):
        assert batch.input_ids[batch.prompts()[r, : len(e.prompt)]].tolist() == e.prompt


@given(prompts=st.lists(TOKENS, min_size=2, max_size=6), start=TOKENS)
def test_the_shared_start_is_the_longest_that_leaves_every_prompt_a_token(prompts, start):
    prompts = [start + p for p in prompts]
    batch = collate([Example(p, [5], [0], 1) for p in prompts], PAD)
    shared = batch.layout.shared
    assert len({tuple(p[:shared]) for p in prompts}) == 1 and shared < min(map(len, prompts))
    longer = {tuple(p[: shared + 1]) for p in prompts}
    assert len(longer) > 1 or shared + 1 == min(map(len, prompts))


def test_no_examples_give_a_token_that_predicts_nothing():
    batch = collate([], PAD)
    assert batch.input_ids.tolist() == [PAD] and batch.layout.full_grid.tolist() == [[0]]
    for name in ("position", "targets", "nodes", "instance", "step", "title", "prompt_length"):
        value = getattr(batch, name)
        assert value.shape == (0,) and value.dtype == torch.long, name


def test_a_batch_moves_as_a_whole():
    one = collate([Example(prompt=[5], answer=[6], nodes=[0], target_title=1)], PAD)
    moved = replace(one, without_history=one).to("meta")
    tensors = [getattr(moved, f.name) for f in fields(moved)]
    tensors += [getattr(moved.layout, f.name) for f in fields(moved.layout)] + [moved.title]
    assert {x.device.type for x in tensors if isinstance(x, torch.Tensor)} == {"meta"}
    assert moved.without_history.input_ids.device.type == "meta"


@given(prompts=st.lists(TOKENS, min_size=1, max_size=6))
def test_left_pad_keeps_prompts_at_the_right(prompts):
    input_ids, attention_mask = left_pad(prompts, PAD)
    assert input_ids.shape == attention_mask.shape == (len(prompts), max(map(len, prompts)))
    for row, mask, prompt in zip(input_ids, attention_mask, prompts, strict=True):
        assert row[mask.bool()].tolist() == prompt
        assert mask.tolist() == sorted(mask.tolist())
        assert row[~mask.bool()].eq(PAD).all()


def test_the_last_answer_token_is_not_fed():
    one = collate([Example(prompt=[5] * 9, answer=[6, 2], nodes=[0, 1], target_title=1)], PAD)
    assert one.tokens == 10
    with pytest.raises(ValueError):
        left_pad([], PAD)
