"""DROS: its weights and robust term against naive ones, what each form means, and a pattern that it must
learn."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from bearray.baselines import SASRec, fit, number_titles, view
from bearray.baselines.base import top_titles
from bearray.baselines.data import PAD
from bearray.baselines.dros import DROS, nominal, robust_term
from bearray.config import DROSConfig, SASRecConfig, override
from bearray.data import Dataset
from tests.baselines.naive import FixedBatch, check_same

COUNTS = [5, 0, 2, 9, 1, 0, 3, 3, 7]
Form = Literal["equation", "released"]
BOTH: tuple[Form, Form] = ("equation", "released")


def make(**changes: Any) -> DROS:
    small = {"hidden": 8, "heads": 2, "max_history": 5, "dropout": 0.0, "alpha": 0.7, "beta": 0.4}
    model = DROS(torch.tensor(COUNTS), override(DROSConfig(), {**small, **changes})).double()
    model.weights = nominal(torch.tensor(COUNTS), model.robust.gamma, model.robust.form)  # kept in float32
    return model


def naive_term(scores: Tensor, target: int, *, beta: float, gamma: float, form: Form) -> Tensor:
    share = [((n + 1) / sum(m + 1 for m in COUNTS)) ** gamma for n in COUNTS]
    total = torch.zeros((), dtype=torch.float64)
    for title, score in enumerate(scores):
        label = float(title == target)
        if form == "equation":
            error = (1 / (1 + torch.exp(-score)) - label) ** 2
            total = total + share[title] / sum(share) * torch.exp(error / beta)
        else:
            total = total + torch.exp(share[title] * (score - label) ** 2 / beta)
    return torch.log(total) * (beta if form == "equation" else 1)


@pytest.mark.parametrize("form", BOTH)
def test_the_loss_and_its_gradients_equal_a_naive_reference(form: Form) -> None:
    model = make(form=form)
    titles = torch.tensor([[PAD, PAD, PAD, 2, 7, 2], [1, 4, 4, 8, 0, 3]])
    negatives = torch.tensor([[8, 8, 8, 1, 5], [2, 5, 7, 6, 2]])
    terms = []
    for row, drawn in zip(titles.tolist(), negatives.tolist(), strict=True):
        history = [t for t in row[:-1] if t != PAD]
        hidden = model.hidden(torch.tensor([history]))[0]
        for place, state in enumerate(hidden):
            slot = len(row) - 1 - len(history) + place
            scores = model.items @ state
            terms += [
                -torch.log(torch.sigmoid(scores[row[slot + 1]])),
                -torch.log(1 - torch.sigmoid(scores[drawn[slot]])),
                0.7 * naive_term(scores, row[slot + 1], beta=0.4, gamma=0.05, form=form),
            ]
    got = model.loss(FixedBatch(titles, negatives))  # type: ignore[arg-type]
    check_same(model, got, terms, len(terms) / 3)


def test_without_weight_it_is_sasrec() -> None:
    titles, negatives = torch.tensor([[PAD, 4, 1, 3, 7, 2]]), torch.tensor([[0, 5, 6, 8, 0]])
    batch: Any = FixedBatch(titles, negatives)
    plain = SASRec(9, override(SASRecConfig(), {"hidden": 8, "heads": 2, "max_history": 5, "dropout": 0.0}))
    assert torch.equal(make(alpha=0.0).loss(batch)[0], plain.double().loss(batch)[0])
    assert make(alpha=0.1).loss(batch)[0] != plain.loss(batch)[0]


def test_the_equation_is_the_worst_mean_error_near_the_nominal_distribution() -> None:
    """b0 log E_p exp(e / b0) = max over distributions q of E_q e - b0 KL(q, p)."""
    scores, target, beta = torch.linspace(-2, 2, 9, dtype=torch.float64), 3, 0.3
    p = nominal(torch.tensor(COUNTS), 0.05, "equation")
    error = scores.sigmoid() ** 2
    error[target] = (1 - scores.sigmoid()[target]) ** 2

    def negative(z: Any) -> float:
        q = torch.softmax(torch.tensor(z), 0)
        return -float((q * error).sum() - beta * (q * (q / p).log()).sum())

    worst = -minimize(negative, [0.0] * 9, tol=1e-12).fun
    got = robust_term(scores[None], torch.tensor([target]), p, beta=beta, form="equation")
    assert float(got) == pytest.approx(worst, abs=1e-6)


def test_the_nominal_distribution() -> None:
    p = nominal(torch.tensor(COUNTS), 0.5, "equation")
    assert float(p.sum()) == pytest.approx(1) and float(p[3] / p[1]) == pytest.approx(math.sqrt(10))
    released = nominal(torch.tensor(COUNTS), 0.05, "released")
    assert float(released[3]) == pytest.approx((10 / 39) ** 0.05)


@pytest.mark.parametrize("form", BOTH)
def test_large_scores_do_not_overflow(form: Form) -> None:
    scores = torch.tensor([[1e4, -1e4, 30.0]], requires_grad=True)
    weights = nominal(torch.tensor([1, 1, 1]), 0.05, form).float()
    robust_term(scores, torch.tensor([1]), weights, beta=0.5, form=form).sum().backward()
    assert scores.grad is not None and torch.isfinite(scores.grad).all()


def test_frequencies_are_of_next_titles(circle: Dataset) -> None:
    data = view(circle, number_titles(circle.items), max_history=6)
    counts = [0] * data.num_titles
    for items in circle.train["item_ids"]:
        for item in items[-6:] if len(items) > 6 else items[1:]:
            counts[item - 1] += 1
    assert data.label_counts().tolist() == counts


def test_it_learns_a_planted_pattern(circle: Dataset) -> None:
    config = override(
        DROSConfig(),
        {"hidden": 32, "layers": 1, "train.epochs": 30, "train.batch_size": 32, "train.lr": 5e-3},
    )
    data = view(circle, number_titles(circle.items), max_history=config.max_history)
    model = DROS(data.label_counts(), config)

    def share_of_hits() -> float:
        first, _ = top_titles(model, data.test.histories, data.num_titles, 1, exclude_history=True)
        return float((first[:, 0] == data.test.targets.numpy()).mean())

    assert share_of_hits() < 0.2
    fit(model, data, config.train)
    assert share_of_hits() > 0.97
