"""Stage 1 of A-LLMRec against a naive float64 version."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bearray.backbones.alignment import Alignment, standardised


def numbers(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive(model: Alignment, users, positive, negative) -> float:
    """The formulas of the module's docstring, number by number."""
    w = {name: value.detach().numpy() for name, value in model.state_dict().items()}

    def code(name: str, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inner = 1 / (1 + np.exp(-(w[f"{name}.encode.weight"] @ vector + w[f"{name}.encode.bias"])))
        return inner, w[f"{name}.decode.weight"] @ inner + w[f"{name}.decode.bias"]

    sides = []
    for (items, texts), label in ((positive, 1), (negative, 0)):
        bce, match, item, text = [], [], [], []
        for u, e, t in zip(users.numpy(), items.numpy(), texts.numpy(), strict=True):
            inner_item, item_again = code("items", e)
            inner_text, text_again = code("texts", t)
            score = sum(a * b for a, b in zip(u, item_again, strict=True)) / len(u)
            p = 1 / (1 + math.exp(-score))
            bce.append(-math.log(p if label else 1 - p))
            match += list((inner_item - inner_text) ** 2)
            item += list((item_again - e) ** 2)
            text += list((text_again - t) ** 2)
        sides.append(np.mean(bce) + np.mean(match) + 0.5 * np.mean(item) + 0.2 * np.mean(text))
    return float(sum(sides))


@pytest.mark.parametrize("windows", [1, 5])
def test_the_loss_and_its_gradient(windows: int) -> None:
    torch.manual_seed(0)
    model = Alignment(6, 10, space=7).double()
    users = numbers(windows, 6, seed=1) * 3
    positive = numbers(windows, 6, seed=2), numbers(windows, 10, seed=3)
    negative = numbers(windows, 6, seed=4), numbers(windows, 10, seed=5)
    loss = model.loss(users, positive, negative)
    assert float(loss) == pytest.approx(naive(model, users, positive, negative), rel=1e-12)
    loss.backward()
    step = 1e-6
    for name, weight in model.named_parameters():
        place = (0,) * weight.dim()
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[place] += sign * step
                ends.append(naive(model, users, positive, negative))
                weight[place] -= sign * step
        slope = (ends[0] - ends[1]) / (2 * step)
        assert float(weight.grad[place]) == pytest.approx(slope, rel=1e-5, abs=1e-9), name


def test_aligned_items_are_sigmoids_in_a_space_of_128() -> None:
    model = Alignment(6, 10)
    found = model.aligned(torch.randn(4, 6))
    assert found.shape == (4, 128) and bool(((found > 0) & (found < 1)).all())


def test_text_vectors_are_centred_and_scaled() -> None:
    scaled = standardised(torch.randn(50, 8) * 3 + 100)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    assert float(scaled.square().mean()) == pytest.approx(1, rel=1e-4)
    assert bool(standardised(torch.ones(3, 2)).isfinite().all())
