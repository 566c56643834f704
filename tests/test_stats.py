"""Intervals and tests: against brute force, known values, and their own promises (coverage, false
positives)."""

from __future__ import annotations

import itertools
import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bearray import stats
from bearray.stats import bootstrap_interval, bootstrap_ratios, holm, paired_test


def clustered(seed: int, users: int = 40, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Users with 1 to 6 values each, whose mean differs from user to user; the overall mean is about 0."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(users), rng.integers(1, 7, users))
    return rng.normal(0, spread, users)[owner] + rng.normal(0, 0.3, len(owner)), owner


def naive_bootstrap(values: np.ndarray, users: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Means of resampled users, one user at a time."""
    rng = np.random.default_rng(seed)
    groups = [values[users == u] for u in np.unique(users)]
    picks = rng.integers(0, len(groups), (draws, len(groups)))
    return np.array([np.concatenate([groups[i] for i in row]).mean() for row in picks])


@pytest.mark.parametrize("rounded", [False, True], ids=["all users differ", "many equal users"])
def test_interval_equals_resampling_users_one_by_one(rounded: bool) -> None:
    values, users = clustered(0)
    if rounded:
        values = (values > 1).astype(float)
    mean, low, high = bootstrap_interval(values, users, draws=8000)
    naive = naive_bootstrap(values, users, 8000, 1)
    assert mean == pytest.approx(values.mean())
    width = np.quantile(naive, 0.975) - np.quantile(naive, 0.025)
    assert low == pytest.approx(np.quantile(naive, 0.025), abs=0.05 * width)
    assert high == pytest.approx(np.quantile(naive, 0.975), abs=0.05 * width)


def test_interval_covers_the_truth() -> None:
    covered = rows_covered = 0
    for seed in range(200):
        values, users = clustered(seed, users=60)
        _, low, high = bootstrap_interval(values, users, draws=500, seed=seed)
        covered += low <= 0 <= high
        _, low, high = bootstrap_interval(values, np.arange(len(values)), draws=500, seed=seed)
        rows_covered += low <= 0 <= high
    assert 0.89 <= covered / 200 <= 0.99
    assert rows_covered / 200 < 0.85  # what users are resampled for: rows alone are too sure


def test_interval_is_deterministic_and_ordered() -> None:
    values, users = clustered(3)
    assert bootstrap_interval(values, users) == bootstrap_interval(values, users)
    assert bootstrap_interval(values, users) != bootstrap_interval(values, users, seed=1)
    names = np.array([f"user {u}" for u in users])
    shuffled = np.random.default_rng(0).permutation(len(values))
    expected = pytest.approx(bootstrap_interval(values, users), rel=1e-9)
    assert bootstrap_interval(values[shuffled], users[shuffled]) == expected
    assert bootstrap_interval(values, names)[0] == pytest.approx(values.mean())
    narrow, wide = (bootstrap_interval(values, users, level=level) for level in (0.5, 0.99))
    assert wide[1] < narrow[1] < narrow[0] < narrow[2] < wide[2]


def test_interval_does_not_depend_on_chunks_of_memory() -> None:
    values, users = clustered(4)
    whole = bootstrap_interval(values, users, draws=301)
    with mock.patch.object(stats, "_CHUNK", 1000):
        assert bootstrap_interval(values, users, draws=301) == pytest.approx(whole)


def test_interval_without_spread() -> None:
    assert bootstrap_interval([0.0, 0.0, 0.0], [1, 2, 2]) == (0.0, 0.0, 0.0)
    assert bootstrap_interval([1.0, 0.0], [7, 7]) == (0.5, 0.5, 0.5)


def brute_force_p(difference: np.ndarray) -> float:
    observed = abs(difference.sum())
    sums = [abs(np.dot(s, difference)) for s in itertools.product((1, -1), repeat=len(difference))]
    return float(np.mean([s >= observed - 1e-9 for s in sums]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.0, 0.1, 0.63, 1.0]), min_size=1, max_size=8))
def test_few_users_are_enumerated(difference: list[float]) -> None:
    d = np.array(difference)
    result = paired_test(d, np.zeros(len(d)), np.arange(len(d)))
    assert result.p_value == pytest.approx(brute_force_p(d))
    assert result.mean_difference == pytest.approx(d.mean())
    assert result.users == len(d)


def test_many_users_agree_with_scipy() -> None:
    rng = np.random.default_rng(5)
    for shift in (0.0, 0.15, 0.3):
        d = rng.normal(shift, 1, 80)
        theirs = scipy_stats.permutation_test(
            (d, np.zeros(80)),
            lambda a, b, axis: (a - b).mean(axis),
            permutation_type="samples",
            n_resamples=20_000,
            vectorized=True,
            rng=0,
        )
        assert paired_test(d, np.zeros(80), np.arange(80)).p_value == pytest.approx(theirs.pvalue, abs=0.015)


def test_drawn_and_enumerated_p_values_agree() -> None:
    d = np.array([0.5, 0.5, -0.3, 1.0, 0.2, 0.2, -0.1, 0.4, 0.6, -0.7])
    exact = paired_test(d, np.zeros(10), np.arange(10)).p_value
    with mock.patch.object(stats, "_EXACT", 0), mock.patch.object(stats, "_CHUNK", 5000):
        drawn = paired_test(d, np.zeros(10), np.arange(10)).p_value
    assert drawn == pytest.approx(exact, abs=0.01)


def test_p_values_are_uniform_when_nothing_differs() -> None:
    p = []
    for seed in range(300):
        (a, users), (b, _) = clustered(seed, users=30), clustered(seed, users=30)
        flips = np.random.default_rng(1000 + seed).normal(0, 1, 30)[users]  # a user's cases move together
        p.append(paired_test(a + flips, b, users, draws=500, seed=seed).p_value)
    assert scipy_stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) <= 0.05) < 0.09


def test_users_count_once() -> None:
    """Nine users for a, one with many test cases for b: the comparison is between users."""
    a = np.array([1.0] * 9 + [0.0] * 50)
    users = np.array([*range(9), *[9] * 50])
    result = paired_test(a, 1 - a, users)
    assert result.mean_difference == pytest.approx((9 - 1) / 10)
    assert result.p_value == pytest.approx((1 + 10) * 2 / 2**10)
    assert result.low < result.mean_difference < result.high
    swapped = paired_test(1 - a, a, users)
    assert swapped.mean_difference == -result.mean_difference
    assert swapped.p_value == result.p_value


def test_equal_methods() -> None:
    values, users = clustered(6)
    result = paired_test(values, values, users)
    assert (result.mean_difference, result.low, result.high, result.p_value) == (0, 0, 0, 1)


def test_a_drawn_p_value_is_never_zero() -> None:
    result = paired_test(np.ones(200), np.zeros(200), np.arange(200), draws=99)
    assert result.p_value == 1 / 100


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_properties(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(x <= y <= 1 for x, y in zip(p, adjusted, strict=True))
    assert all(
        y <= min(1, len(p) * x) + 1e-12 for x, y in zip(p, adjusted, strict=True)
    )  # never above Bonferroni
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()
    for level in (0.01, 0.05, 0.2):  # the step-down procedure itself
        rejected = set()
        for step, i in enumerate(order):
            if p[i] * (len(p) - step) > level:
                break
            rejected.add(int(i))
        assert rejected == {i for i, y in enumerate(adjusted) if y <= level}


def test_bad_input() -> None:
    for values, users in (([], []), ([1.0], [1, 2]), ([math.nan], [1]), ([math.inf], [1]), ([[1.0]], [[1]])):
        with pytest.raises(ValueError, match="value"):
            bootstrap_interval(values, users)
    for options in ({"level": 0}, {"level": 1}, {"level": 95}, {"draws": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            bootstrap_interval([1.0], [1], **options)
    with pytest.raises(ValueError, match="same test cases"):
        paired_test([1.0], [1.0, 2.0], [1])
    with pytest.raises(ValueError, match="draws"):
        paired_test([1.0], [1.0], [1], draws=0)
    for p in ([-0.1], [1.1], [math.nan], [[0.5]]):
        with pytest.raises(ValueError, match="p-values"):
            holm(p)  # type: ignore[arg-type]


def test_ratios_have_the_interval_of_means_where_they_are_means() -> None:
    rng = np.random.default_rng(3)
    users = rng.integers(0, 60, 200)
    values = rng.random(200)
    (mean, low, high), (part, _, _) = bootstrap_ratios(
        np.stack([values, values * (values > 0.5)], axis=1),
        np.stack([np.ones(200), values > 0.5], axis=1),
        users,
    )
    wanted = bootstrap_interval(values, users)
    assert mean == pytest.approx(wanted[0])
    assert (low, high) == pytest.approx(wanted[1:], abs=0.004)  # other draws of the same distribution
    assert part == pytest.approx(values[values > 0.5].mean())


def test_ratios_by_enumeration() -> None:
    """Two users: one of each (half of the draws), or twice the same (a quarter each)."""
    found = bootstrap_ratios([[1.0], [3.0]], [[1.0], [1.0]], [7, 9], level=0.6)
    assert found.tolist() == [[2.0, 1.0, 3.0]]
    assert bootstrap_ratios([[1.0], [3.0]], [[1.0], [1.0]], [7, 9], level=0.4).tolist() == [[2.0, 2.0, 2.0]]
    # a draw without a denominator says nothing
    assert bootstrap_ratios([[1.0], [0.0]], [[2.0], [0.0]], [7, 9]).tolist() == [[0.5, 0.5, 0.5]]
    assert np.isnan(bootstrap_ratios([[1.0], [0.0]], [[0.0], [0.0]], [7, 9])).all()


@pytest.mark.parametrize(
    ("numerators", "denominators", "users"),
    [([1.0], [1.0], [1]), ([[1.0]], [[1.0, 1.0]], [1]), ([[1.0]], [[1.0]], [1, 2]), ([[1.0]], [[-1.0]], [1])],
)
def test_ratios_of_impossible_numbers(numerators: list, denominators: list, users: list) -> None:
    with pytest.raises(ValueError, match="denominator"):
        bootstrap_ratios(numerators, denominators, users)
