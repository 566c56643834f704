"""Titles sampled from the policy: against a token-by-token loop with the same draws, and by frequency."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bearray.backbones.load import load_model
from bearray.backbones.lora import add_lora
from bearray.batching import left_pad
from bearray.decoding import exact_top_k
from bearray.negatives import OtherAnswers, SampledTitles
from bearray.negatives.drawn import stream
from bearray.objectives import NegativeSpec
from bearray.trie import TokenTrie

ROWS = [5, 0, 11, 3]
SMALL = [[5, 6], [5, 6, 7], [5, 8, 9, 9, 4], [5, 8, 9, 10], [5, 8, 9, 9, 11, 12, 13]]
"""The first token is forced, and one title begins like another."""


@pytest.fixture(scope="module")
def model(micro_task: Any) -> Any:
    model = add_lora(load_model(micro_task.config.model.base, device="cpu"), micro_task.config.model)
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:  # else the first tokens are all but certain
                weight.copy_(0.5 * torch.randn(weight.shape, generator=g))
    return model


def supplier(model: Any, task: Any, titles: list[list[int]], **changes: Any) -> SampledTitles:
    options = {"count": 3, "batch_size": None, "pad_token_id": task.pad_token_id, "seed": 7, **changes}
    prompts = options.pop("prompts", [e.prompt for e in task.examples()])
    return SampledTitles(model, TokenTrie.from_sequences(titles), prompts, **options)


@torch.no_grad()
def slowly(model: Any, prompt: list[int], titles: list[list[int]], end: int, draws: list[float]):
    """One title, a whole forward pass for each token, and its log-probability."""
    model.eval()
    prefix: list[int] = []
    score = 0.0
    while True:
        valid = sorted({(*t, end)[len(prefix)] for t in titles if t[: len(prefix)] == prefix} - {end})
        valid += [end] if prefix in titles else []
        logits = model(input_ids=torch.tensor([prompt + prefix])).logits[0, -1, valid].double()
        upto = logits.softmax(0).cumsum(0)
        if len(valid) > 1:
            column = int((upto <= draws[len(prefix)]).sum())
        else:
            column = 0
        score += float(logits.log_softmax(0)[column])
        if valid[column] == end:
            return titles.index(prefix), score
        prefix.append(valid[column])


@pytest.mark.parametrize("catalogue", ["demo", "small"])
def test_equals_a_loop_with_the_same_draws(catalogue, micro_task, model):
    titles = SMALL if catalogue == "small" else micro_task.catalog.tokens
    examples = micro_task.examples()
    model.train()
    found = supplier(model, micro_task, titles)(ROWS, step=2)
    assert model.training  # sampling puts the model back as it was
    depth = max(map(len, titles)) + 1
    for row, own in zip(ROWS, found, strict=True):
        draws = stream(7, 2, row).random((3, depth)).tolist()
        for drawn, numbers in zip(own, draws, strict=True):
            title, score = slowly(model, examples[row].prompt, titles, micro_task.eos_token_id, numbers)
            assert drawn.title == title
            assert drawn.score == pytest.approx(score, rel=1e-4, abs=1e-4)
    model.train()
    assert len({d.title for own in found for d in own}) > 3


def test_draws_depend_on_seed_step_and_window_alone(micro_task, model):
    titles = micro_task.catalog.tokens

    def drawn(rows: list[int], step: int, **changes: Any) -> list[list[int]]:
        return [[d.title for d in own] for own in supplier(model, micro_task, titles, **changes)(rows, step)]

    whole = drawn(ROWS, 2)
    assert drawn(ROWS[::-1], 2) == whole[::-1]
    assert [drawn([row], 2)[0] for row in ROWS] == whole
    assert drawn(ROWS, 2, batch_size=2) == whole
    assert drawn(ROWS, 3) != whole and drawn(ROWS, 2, seed=8) != whole
    assert drawn([], 2) == []


def test_frequencies_are_the_policys_probabilities(micro_task, model):
    prompt = micro_task.examples()[4].prompt
    times, trie = 300, TokenTrie.from_sequences(SMALL)
    ids, mask = left_pad([prompt], micro_task.pad_token_id)
    exact = exact_top_k(model, ids, mask, trie, k=len(SMALL), normalize="trie")
    wanted = torch.zeros(len(SMALL)).index_put((exact.title_ids[0],), exact.scores[0].exp())
    assert float(wanted.sum()) == pytest.approx(1, abs=1e-4)
    found = supplier(model, micro_task, SMALL, count=8, prompts=[prompt] * times)(list(range(times)), step=0)
    titles = torch.tensor([d.title for own in found for d in own])
    seen = torch.bincount(titles, minlength=len(SMALL)) / len(titles)
    sigma = (wanted * (1 - wanted) / len(titles)).sqrt()
    assert ((seen - wanted).abs() <= 4 * sigma + 1e-6).all(), (seen, wanted)
    log_p = {int(t): float(s) for t, s in zip(exact.title_ids[0], exact.scores[0], strict=True)}
    assert all(d.score == pytest.approx(log_p[d.title], abs=1e-3) for own in found for d in own)


def test_as_answers_in_tokens(micro_task, model):
    task = micro_task
    others = OtherAnswers(
        NegativeSpec("sample", 1), task.config, task, task.examples(), model, task.catalog.trie
    )
    assert others.uses_model
    for (answer,) in others(ROWS, step=0):
        assert answer.tokens == [*task.catalog.tokens[answer.title], task.eos_token_id]
        assert len(answer.nodes) == len(answer.tokens) and answer.score < 0
