"""DLLM2Rec: each term of its loss against a naive one, what it may look at, a teacher that it follows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bearray.baselines import BaselineData, LLMParts, fit, number_titles, view
from bearray.baselines.base import top_titles
from bearray.baselines.data import PAD
from bearray.baselines.dllm2rec import DLLM2Rec, teacher_weights
from bearray.baselines.dros import nominal
from bearray.config import DLLM2RecConfig, override
from bearray.data import Dataset
from bearray.errors import DataError
from tests.baselines.naive import FixedBatch, check_same
from tests.baselines.test_dros import COUNTS, naive_term

VECTORS = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
PARTS = LLMParts(
    key="k",
    title_vectors=VECTORS,
    teacher_titles=torch.tensor([[3, 5, 1], [0, 7, 2], [8, 4, 6]]),
    teacher_distances=torch.tensor([[0.5, 1.5, 3.0], [200.0, 201.0, 203.0], [1.0, 1.0, 1.0]]),
)


def make(**changes: Any) -> DLLM2Rec:
    small = {"hidden": 8, "max_history": 5, "dropout": 0.0, "teacher_titles": 3, "alpha": 0.6, "beta": 0.8}
    config = override(DLLM2RecConfig(), {**small, **changes})
    model = DLLM2Rec(torch.tensor(COUNTS), 2.5, PARTS, config).double()
    model.weights = nominal(torch.tensor(COUNTS), config.gamma, config.form)  # kept in float32
    return model


def naive_weights(distances: list[float], agreed: list[bool], c: DLLM2RecConfig) -> list[float]:
    least = min(distances)
    found = []
    for k, distance in enumerate(distances, 1):
        rank = math.exp(-k) / sum(math.exp(-j) for j in range(1, len(distances) + 1))
        near = math.exp(least - distance) / sum(math.exp(least - d) for d in distances)
        found.append(c.by_rank * rank + c.by_confidence * near + c.by_agreement * agreed[k - 1])
    return [w / sum(found) for w in found]


@pytest.mark.parametrize("changes", [{}, {"form": "released"}, {"alpha": 0.0, "by_agreement": 2.0}])
def test_the_loss_and_its_gradients_equal_a_naive_reference(changes: dict[str, Any]) -> None:
    model = make(**changes)
    c = model.config
    titles = torch.tensor([[PAD, PAD, PAD, 2, 7, 2], [1, 4, 4, 8, 0, 3]])
    negatives = torch.tensor([[8, 8, 8, 1, 5], [2, 5, 7, 6, 2]])
    rows = np.array([2, 1])
    terms, places = [], 0

    def bce(positive: Tensor, negative: Tensor) -> Tensor:
        return -torch.log(torch.sigmoid(positive)) - torch.log(torch.sigmoid(-negative))

    def robust(scores: Tensor, title: int) -> Tensor:
        return c.alpha * naive_term(scores, title, beta=0.8, gamma=c.gamma, form=c.form)

    for row, drawn, number in zip(titles.tolist(), negatives.tolist(), rows.tolist(), strict=True):
        history = [t for t in row[:-1] if t != PAD]
        hidden = model.hidden(torch.tensor([history]))[0]
        for place, state in enumerate(hidden):
            slot = len(row) - 1 - len(history) + place
            scores = model.items @ state
            places += 1
            terms += [bce(scores[row[slot + 1]], scores[drawn[slot]]), robust(scores, row[slot + 1])]
        own = set(scores.topk(3).indices.tolist())
        teacher = PARTS.teacher_titles[number].tolist()  # type: ignore[index]
        distances = PARTS.teacher_distances[number].tolist()  # type: ignore[index]
        weights = naive_weights(distances, [t in own for t in teacher], c)
        for weight, title in zip(weights, teacher, strict=True):
            taught = bce(scores[title], scores[drawn[-1]]) + robust(scores, title)
            terms.append(c.distill * 2.5 * weight * taught)
    got = model.loss(FixedBatch(titles, negatives, rows))  # type: ignore[arg-type]
    check_same(model, got, terms, places)


def test_weights_of_a_teachers_titles() -> None:
    config = override(DLLM2RecConfig(), {"by_rank": 0.3, "by_confidence": 0.5, "by_agreement": 0.1})
    agreed = torch.tensor([[True, False, False], [False, False, True]])
    distances = torch.tensor([[0.5, 1.5, 3.0], [2000.0, 2001.0, 2003.0]], dtype=torch.float64)
    got = teacher_weights(distances, agreed, config)
    for row in (0, 1):
        expected = naive_weights(distances[row].tolist(), agreed[row].tolist(), config)
        assert got[row].tolist() == pytest.approx(expected, rel=1e-9)


def test_what_a_title_says_goes_into_the_encoder() -> None:
    plain, told = make(text_weight=0.0), make(text_weight=0.2)
    titles = torch.tensor([[PAD, 2, 5]])
    expected = 0.2 * (VECTORS[[2, 5]].double() @ told.text.weight.T + told.text.bias)
    torch.testing.assert_close((told.embed(titles) - plain.embed(titles))[0, 1:], expected)


def test_the_target_is_not_looked_at_and_padding_has_no_influence() -> None:
    model = make().eval()
    torch.testing.assert_close(model(torch.tensor([[PAD, PAD, 4, 1]])), model(torch.tensor([[4, 1]])))
    before = model.hidden(torch.tensor([[4, 1, 3, 7]]))
    after = model.hidden(torch.tensor([[4, 1, 3, 2]]))
    assert torch.equal(before[0, :3], after[0, :3]) and not torch.equal(before[0, 3], after[0, 3])


def test_parts_that_do_not_fit_are_refused(circle: Dataset) -> None:
    data = view(circle, number_titles(circle.items), max_history=6)
    config = DLLM2RecConfig()
    with pytest.raises(DataError, match="vectors are of 9 titles, the data has 40"):
        DLLM2Rec(data.label_counts(), 3.0, PARTS, config)
    with pytest.raises(DataError, match="dllm2rec needs teacher_titles"):
        DLLM2Rec(torch.tensor(COUNTS), 3.0, replace(PARTS, teacher_titles=None), config)


def parts_of(data: BaselineData, shift: int) -> LLMParts:
    """A teacher whose first title is `shift` titles after the target, with noise behind it."""
    generator = torch.Generator().manual_seed(1)
    first = (data.train.targets + shift) % data.num_titles
    others = torch.stack([torch.randperm(data.num_titles, generator=generator)[:2] for _ in first])
    return LLMParts(
        key="k",
        title_vectors=torch.randn(data.num_titles, 8, generator=generator),
        teacher_titles=torch.cat([first[:, None], others], dim=1),
        teacher_distances=torch.tensor([0.1, 5.0, 6.0]).expand(len(first), 3).contiguous(),
    )


@pytest.mark.parametrize(("shift", "distill"), [(0, 0.8), (5, 30.0)])
def test_it_learns_a_planted_pattern_and_follows_its_teacher(
    circle: Dataset, shift: int, distill: float
) -> None:
    """With an able teacher it finds the next title; with much weight on one who says something else, that."""
    data = view(circle, number_titles(circle.items), max_history=6)
    config = override(
        DLLM2RecConfig(),
        {
            "hidden": 32,
            "layers": 1,
            "max_history": 6,
            "dropout": 0.0,
            "distill": distill,
            "alpha": 0.1,
            "train.epochs": 35,
            "train.patience": None,
            "train.batch_size": 32,
            "train.lr": 5e-3,
        },
    )
    model = DLLM2Rec(data.label_counts(), 4.0, parts_of(data, shift), config)
    valid = replace(data.valid, titles=data.valid.titles.clone())
    valid.titles[:, -1] = (valid.targets + shift) % data.num_titles
    fit(model, replace(data, valid=valid), config.train)
    first, _ = top_titles(model, data.test.histories, data.num_titles, 1, exclude_history=True)
    wanted = (data.test.targets + shift) % data.num_titles
    allowed = ~(data.test.histories == wanted[:, None]).any(1).numpy()
    assert (first[:, 0] == wanted.numpy())[allowed].mean() > (0.97 if shift == 0 else 0.9)
