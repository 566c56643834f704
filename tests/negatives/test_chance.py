"""Uniform and popularity-proportional negatives: their distribution, and what they never are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearray.negatives import PopularityNegatives, UniformNegatives


def titles_of(drawn: list) -> list[list[int]]:
    return [[d.title for d in own] for own in drawn]


@given(data=st.data(), titles=st.integers(2, 40), seed=st.integers(0, 9), step=st.integers(0, 1000))
def test_uniform_ones_differ_from_each_other_and_from_the_target(data, titles, seed, step):
    count = data.draw(st.integers(1, titles - 1))
    targets = data.draw(st.lists(st.integers(0, titles - 1), min_size=1, max_size=5))
    for target, own in zip(
        targets,
        titles_of(UniformNegatives(targets, titles, count, seed)(range(len(targets)), step)),
        strict=True,
    ):
        assert len(set(own)) == count and target not in own
        assert all(0 <= t < titles for t in own)


@given(data=st.data(), seed=st.integers(0, 9))
def test_popular_ones_differ_from_each_other_and_from_the_target_and_occur(data, seed):
    counts = np.array(data.draw(st.lists(st.sampled_from([0, 1, 2, 10**6]), min_size=3, max_size=20)))
    known = int((counts > 0).sum())
    if known < 2:
        counts[:2] = 1
        known = int((counts > 0).sum())
    count = data.draw(st.integers(1, known - 1))
    target = data.draw(st.integers(0, len(counts) - 1))
    (own,) = titles_of(PopularityNegatives([target], counts, count, seed)([0], 3))
    assert len(set(own)) == count and target not in own
    assert all(counts[t] > 0 for t in own)


def test_uniform_is_uniform():
    drawn = titles_of(UniformNegatives([2] * 4000, 6, 2, 0)(range(4000), 0))
    share = np.bincount(np.concatenate(drawn), minlength=6) / 4000
    assert share[2] == 0
    assert share[[0, 1, 3, 4, 5]] == pytest.approx(2 / 5, abs=0.03)  # four standard deviations


def test_popularity_is_proportional_and_without_replacement():
    counts = np.array([6, 3, 1, 5, 0])
    drawn = titles_of(PopularityNegatives([3] * 6000, counts, 2, 0)(range(6000), 0))
    first = np.bincount([own[0] for own in drawn], minlength=5) / 6000
    assert first == pytest.approx(np.array([0.6, 0.3, 0.1, 0, 0]), abs=0.026)
    pairs = {
        (0, 1): 0.6 * 0.3 / 0.4,
        (0, 2): 0.6 * 0.1 / 0.4,
        (1, 0): 0.3 * 0.6 / 0.7,
        (2, 1): 0.1 * 0.3 / 0.9,
    }
    for pair, probability in pairs.items():
        share = sum(tuple(own) == pair for own in drawn) / 6000
        assert share == pytest.approx(probability, abs=0.026)


def test_one_title_with_nearly_all_of_the_mass_is_no_trap():
    counts = np.array([10**12, 1, 1, 1, 1])
    (own,) = titles_of(PopularityNegatives([4], counts, 4, 0)([0], 0))
    assert sorted(own) == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["uniform", "popularity"])
def test_they_depend_on_seed_step_and_window_alone(kind):
    targets, counts = list(range(50)), np.arange(1, 51)

    def make(seed):
        if kind == "uniform":
            return UniformNegatives(targets, 50, 4, seed)
        return PopularityNegatives(targets, counts, 4, seed)

    whole = titles_of(make(7)(range(50), 5))
    assert titles_of(make(7)([31, 4], 5)) == [whole[31], whole[4]]
    assert titles_of(make(7)(range(50), 6)) != whole
    assert titles_of(make(8)(range(50), 5)) != whole
