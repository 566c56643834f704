"""The learning rate over a run."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import get_linear_schedule_with_warmup

from bearray.training.timeline import learning_rate


def rates(total: int, warmup: int, schedule: str = "linear", peak: float = 1.0) -> list[float]:
    return [learning_rate(s, total, peak=peak, warmup=warmup, schedule=schedule) for s in range(total)]


def test_linear_by_hand():
    assert rates(6, 2, peak=2.0) == pytest.approx([1.0, 2.0, 2.0, 1.5, 1.0, 0.5])


def test_constant_by_hand():
    assert rates(4, 2, "constant") == pytest.approx([0.5, 1.0, 1.0, 1.0])


def test_without_warmup():
    assert rates(4, 0) == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_a_run_shorter_than_its_warmup_only_rises():
    assert rates(3, 20) == pytest.approx([0.05, 0.1, 0.15])


def test_after_warmup_it_is_the_schedule_of_transformers():
    """Which the published code used; its first step has a rate of 0, ours the first part of the rise."""
    total, warmup = 79, 20
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    scheduler = get_linear_schedule_with_warmup(optimizer, warmup, total)
    theirs = []
    for _ in range(total):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert theirs[warmup:] == pytest.approx(rates(total, warmup, peak=1e-4)[warmup:])


@given(
    total=st.integers(1, 300), warmup=st.integers(0, 400), schedule=st.sampled_from(["linear", "constant"])
)
def test_rises_then_never_rises_again_and_stays_within_the_peak(total, warmup, schedule):
    curve = rates(total, warmup, schedule)
    assert all(0 < rate <= 1 for rate in curve)
    top = min(max(warmup, 1), total) - 1
    assert curve[: top + 1] == sorted(curve[: top + 1])
    assert curve[top:] == sorted(curve[top:], reverse=True)
    assert warmup > total or max(curve) == pytest.approx(1.0)
