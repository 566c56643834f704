"""`largest` by chunks against a plain sort."""

from __future__ import annotations

import pytest
import torch

from bearray.objectives.ops import largest


@pytest.mark.parametrize("width", [5, 3_000, 16_384, 20_011, 128_256])
@pytest.mark.parametrize("k", [1, 5, 40, 100])
def test_equals_a_sort(width: int, k: int) -> None:
    g = torch.Generator().manual_seed(width + k)
    x = torch.randn(7, width, generator=g)
    x[1] = x[1].round()  # many equal values
    x[2, 3:] = -torch.inf  # fewer finite ones than k
    x[3, -4:] += 10.0  # the last columns, which no chunk has
    x[4, : width // 256] += 10.0  # all in one chunk
    x[5] = -torch.inf
    k = min(k, width)
    assert torch.equal(largest(x, k), x.sort(dim=1, descending=True).values[:, :k])
    assert largest(x[:0], k).shape == (0, k)
