"""The encoder, place by place and in loops; and batches whose chance is given."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from bearray.baselines import Baseline


def norm(x: Tensor, layer: Any) -> Tensor:
    centred = x - x.mean()
    return centred / (x.var(unbiased=False) + 1e-8).sqrt() * layer.weight + layer.bias


def encode(encoder: Any, inputs: list[Tensor]) -> list[Tensor]:
    """The encoder's states at the places of one sequence without padding."""
    first, width = len(encoder.positions) - len(inputs), encoder.positions.shape[1]
    xs = [x + encoder.positions[first + place] for place, x in enumerate(inputs)]
    for block in encoder.blocks:
        qkv = [block.qkv.weight @ x + block.qkv.bias for x in xs]
        size = width // block.heads
        after = []
        for place, x in enumerate(xs):
            heads = []
            for head in range(block.heads):
                q, k, v = (
                    slice(part * width + head * size, part * width + (head + 1) * size) for part in range(3)
                )
                seen = range(place + 1) if encoder.causal else range(len(xs))
                weights = [torch.exp(qkv[place][q] @ qkv[i][k] / math.sqrt(size)) for i in seen]
                mixed = sum((w * qkv[i][v] for w, i in zip(weights, seen, strict=True)), torch.zeros(size))
                heads.append(mixed / sum(weights))
            attended = norm(x + block.out.weight @ torch.cat(heads) + block.out.bias, block.norm)
            inner, activation, outer = (block.feed_forward[i] for i in (0, 2, 3))
            fed = outer.weight @ activation(inner.weight @ attended + inner.bias) + outer.bias
            after.append(norm(attended + fed, block.feed_forward_norm))
        xs = after
    return xs


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """Of every parameter, zeros where there is none; the model has none afterwards."""
    model.zero_grad()
    loss.backward()
    found = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }
    model.zero_grad()
    return found


def check_same(model: Baseline, got: tuple[Tensor, Tensor], terms: list[Tensor], weight: float) -> None:
    """The loss is the sum of the reference's terms, its divisor `weight`, and the gradients are equal."""
    expected = torch.stack(terms).sum()
    found, wanted = gradients(model, got[0]), gradients(model, expected)
    assert float(got[1]) == weight
    torch.testing.assert_close(got[0], expected, rtol=1e-9, atol=1e-9)
    assert any(bool(g.abs().max() > 0) for g in wanted.values())
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-7, atol=1e-9, msg=name)


class FixedBatch:
    """A batch with given negatives."""

    def __init__(self, titles: Tensor, negatives: Tensor, rows: Any = None, users: Any = None) -> None:
        self.titles, self.negatives, self.rows, self.users = titles, negatives, rows, users

    def draw_unseen(self, count: int) -> Tensor:
        assert count == self.negatives.shape[1]
        return self.negatives
