"""SASRec against a version written place by place, and on a pattern that it must learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bearray.baselines import SASRec, fit, number_titles, view
from bearray.baselines.base import top_titles
from bearray.baselines.data import PAD
from bearray.baselines.sasrec import bce_one_negative
from bearray.config import SASRecConfig, override
from bearray.data import Dataset
from tests.baselines.naive import FixedBatch, check_same, encode, norm

TITLES = 9


def make(**changes: Any) -> SASRec:
    config = override(SASRecConfig(), {"hidden": 8, "heads": 2, "max_history": 5, "dropout": 0.0, **changes})
    return SASRec(TITLES, config).double()


def states(model: SASRec, history: list[int]) -> list[Tensor]:
    """The hidden state at each place of one history without padding, by the formula and in loops."""
    inputs = [model.items[title] * math.sqrt(model.items.shape[1]) for title in history]
    return [norm(x, model.last_norm) for x in encode(model.encoder, inputs)]


def test_the_loss_and_its_gradients_equal_a_naive_reference() -> None:
    model = make()
    titles = torch.tensor(
        [[PAD, PAD, PAD, 2, 7, 2], [1, 4, 4, 8, 0, 3], [PAD, PAD, PAD, PAD, 5, 6], [PAD, 3, 1, 2, 6, 0]]
    )
    negatives = torch.tensor([[8, 8, 8, 1, 5], [2, 5, 7, 6, 2], [0, 0, 0, 0, 4], [7, 4, 4, 5, 8]])
    terms = []
    for row, drawn in zip(titles.tolist(), negatives.tolist(), strict=True):
        history = [t for t in row[:-1] if t != PAD]
        for place, state in enumerate(states(model, history)):
            slot = len(row) - 1 - len(history) + place
            positive, negative = model.items[row[slot + 1]] @ state, model.items[drawn[slot]] @ state
            terms.append(-torch.log(torch.sigmoid(positive)) - torch.log(1 - torch.sigmoid(negative)))
    assert len(terms) == 12
    check_same(model, model.loss(FixedBatch(titles, negatives)), terms, 12)  # type: ignore[arg-type]


def test_scores_are_of_the_last_place_and_over_all_titles() -> None:
    model = make().eval()
    expected = model.items @ states(model, [4, 1, 3])[-1]
    torch.testing.assert_close(model(torch.tensor([[PAD, PAD, 4, 1, 3]]))[0], expected, rtol=1e-9, atol=1e-9)


def test_a_later_item_changes_nothing_before_it() -> None:
    model = make()
    history = torch.tensor([[PAD, 4, 1, 3, 7]])
    before = model.hidden(history)
    for place in range(1, 5):
        other = history.clone()
        other[0, place] = (other[0, place] + 2) % TITLES
        after = model.hidden(other)
        assert torch.equal(after[0, 1:place], before[0, 1:place])
        assert (after[0, place:] - before[0, place:]).abs().amax(-1).min() > 1e-6


def test_the_target_is_not_looked_at_for_its_own_score() -> None:
    """Of a window that differs in its target only, all states are the same."""
    model = make()
    one, other = torch.tensor([[4, 1, 3, 7, 2, 5]]), torch.tensor([[4, 1, 3, 7, 2, 6]])
    seen: list[Tensor] = []
    hidden = model.hidden
    model.hidden = lambda histories: seen.append(hidden(histories)) or seen[-1]  # type: ignore[method-assign,func-returns-value]
    for titles in (one, other):
        model.loss(FixedBatch(titles, torch.full((1, 5), 8)))  # type: ignore[arg-type]
    assert torch.equal(seen[0], seen[1])


def test_padding_has_no_influence() -> None:
    model = make()
    short, padded = torch.tensor([[4, 1, 3]]), torch.tensor([[PAD, PAD, 4, 1, 3]])
    torch.testing.assert_close(model.hidden(padded)[:, 2:], model.hidden(short), rtol=1e-12, atol=1e-12)
    assert torch.isfinite(model.hidden(padded)).all()


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_the_loss_of_large_logits_is_exact_and_finite(size: float) -> None:
    logits = torch.tensor([size, -size], dtype=torch.float64, requires_grad=True)
    loss = bce_one_negative(logits, -logits)
    loss.sum().backward()
    torch.testing.assert_close(loss, torch.tensor([0.0, 2 * size]).double(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(logits.grad, torch.tensor([0.0, -2.0]).double(), rtol=1e-9, atol=1e-9)


def test_equal_seeds_give_equal_weights_and_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = make(), make(), make(**{"train.seed": 7})
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.items, other.items)


def test_it_learns_a_planted_pattern(circle: Dataset) -> None:
    """Titles of the history are left out: they are never negatives, so nothing keeps their scores down."""
    config = override(
        SASRecConfig(), {"hidden": 32, "train.epochs": 30, "train.batch_size": 32, "train.lr": 5e-3}
    )
    data = view(circle, number_titles(circle.items), max_history=config.max_history)
    model = SASRec(data.num_titles, config)

    def share_of_hits() -> float:
        first, _ = top_titles(model, data.test.histories, data.num_titles, 1, exclude_history=True)
        return float((first[:, 0] == data.test.targets.numpy()).mean())

    assert share_of_hits() < 0.2
    fit(model, data, config.train)
    assert share_of_hits() > 0.97


def test_lists_are_the_best_of_the_whole_catalogue() -> None:
    model = make()
    histories = torch.tensor([[PAD, PAD, PAD, 4, 1], [1, 2, 3, 4, 5]])
    titles, scores = top_titles(model, histories, TITLES, k=4)
    model.eval()
    full = model(histories).detach().numpy()
    assert (titles == np.argsort(-full, axis=1)[:, :4]).all()
    np.testing.assert_allclose(scores, -np.sort(-full, axis=1)[:, :4], rtol=1e-6)
    titles, scores = top_titles(model, histories, TITLES, k=12)
    assert (titles[:, 9:] == -1).all() and (scores[:, 9:] == -np.inf).all() and (titles[:, :9] >= 0).all()


def test_titles_of_the_history_can_be_left_out() -> None:
    model = make()
    histories = torch.tensor([[PAD, PAD, PAD, 4, 1], [1, 2, 3, 4, 5]])
    every, _ = top_titles(model, histories, TITLES, k=9)
    left, scores = top_titles(model, histories, TITLES, k=9, exclude_history=True)
    for row, history in enumerate(([4, 1], [1, 2, 3, 4, 5])):
        rest = [t for t in every[row].tolist() if t not in history]
        assert left[row].tolist() == rest + [-1] * len(history)
        assert np.isfinite(scores[row, : len(rest)]).all() and (scores[row, len(rest) :] == -np.inf).all()
