"""Measures beside accuracy: cases worked by hand, and slow references that follow the formulas."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearray import beyond_accuracy as beyond

LISTS = np.array([[0, 1, 2], [0, 1, 3], [0, -1, -1]])
"""Over six titles; the third list has one title only."""
PHI = np.array([10, 5, 3, 2, 0, 0])


def test_exposure_and_what_is_counted_from_it() -> None:
    shown = beyond.exposure(LISTS, 6)
    assert shown.tolist() == [3, 2, 1, 1, 0, 0]
    assert beyond.aggregate_diversity(shown) == 4
    assert beyond.catalogue_coverage(shown) == pytest.approx(4 / 6)
    place = [1.0, 1 / math.log2(3), 0.5]
    by_place = beyond.exposure(LISTS, 6, by_place=True)
    assert by_place == pytest.approx([3 * place[0], 2 * place[1], place[2], place[2], 0, 0])


def test_entropy_and_gini_by_hand() -> None:
    assert beyond.shannon_entropy([1, 1, 1, 1]) == 2.0
    assert beyond.shannon_entropy([5, 0, 0]) == 0.0
    assert beyond.shannon_entropy([2, 1, 1, 0]) == 1.5
    assert beyond.gini([3, 3, 3]) == 0.0
    assert beyond.gini([0, 0, 7]) == pytest.approx(1.0)
    assert beyond.gini([7]) == 0.0
    # p ascending 0, 1/4, 3/4; (-2) * 0 + 0 * 1/4 + 2 * 3/4, over 2
    assert beyond.gini([3, 0, 1]) == pytest.approx(0.75)


def test_popularity_by_hand() -> None:
    means = beyond.list_means(LISTS, PHI)
    assert means == pytest.approx([6, 17 / 3, 10])
    assert beyond.popularity_lift(means, [5, 5, 5]) == pytest.approx((6 + 17 / 3 + 10) / 15 - 1)
    assert np.isnan(beyond.list_means([[-1, -1]], PHI)).all()
    # 25 pseudo-counts in all: title 0 has 11 + ... of 20 + 6
    assert beyond.self_information(PHI) == pytest.approx([-math.log2((p + 1) / 26) for p in PHI])


def test_head_mid_and_tail_by_hand() -> None:
    # of 20 targets: 4 make the head (title 0 alone), the last 4 at most the tail (2 + 0 + 0)
    assert beyond.popularity_groups(PHI).tolist() == [0, 1, 1, 2, 2, 2]
    assert beyond.popularity_groups([1, 1, 1, 1, 1]).tolist() == [0, 1, 1, 1, 2]
    assert beyond.popularity_groups([0, 9, 1]).tolist() == [2, 0, 2]
    groups = beyond.popularity_groups(PHI)
    assert beyond.long_tail_shares(LISTS, groups) == pytest.approx([2 / 3, 2 / 3, 0])
    assert beyond.target_shares(PHI, groups) == pytest.approx([0.5, 0.4, 0.1])
    place = [1.0, 1 / math.log2(3), 0.5]
    every = 3 * place[0] + 2 * place[1] + 2 * place[2]
    assert beyond.exposure_ratios(LISTS, PHI, groups) == pytest.approx(
        [3 / every / 0.5, (2 * place[1] + place[2]) / every / 0.4, place[2] / every / 0.1]
    )


def test_distance_within_lists_by_hand() -> None:
    words = [*map(beyond.title_words, ["The Red Fox", "the fox", "Blue whale!", "!?", ""])]
    assert words[0] == {"the", "red", "fox"} and words[3] == frozenset()
    found = beyond.intra_list_distance([[0, 1, 2], [3, 4, -1], [2, -1, -1]], words)
    assert found[:2] == pytest.approx([(1 / 3 + 1 + 1) / 3, 0.0])
    assert np.isnan(found[2])


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Lists without repetition, some cut short, and popularities."""
    titles = draw(st.integers(3, 8))
    phi = draw(st.lists(st.integers(0, 6), min_size=titles, max_size=titles).filter(any))
    order = st.permutations(range(titles)).map(lambda p: p[:3])
    lists = draw(st.lists(order, min_size=1, max_size=5))
    cut = [
        [x if k < n else -1 for k, x in enumerate(row)] for row in lists for n in [draw(st.integers(1, 3))]
    ]
    return np.array(cut), np.array(phi)


@given(cases())
def test_equals_slow_references(case: tuple[np.ndarray, np.ndarray]) -> None:
    lists, phi = case
    n, kept = len(phi), [[x for x in row if x >= 0] for row in lists.tolist()]
    count = Counter(x for row in kept for x in row)
    shown = beyond.exposure(lists, n)
    assert beyond.aggregate_diversity(shown) == len(count)
    p = [count[i] / sum(count.values()) for i in range(n)]
    assert beyond.shannon_entropy(shown) == pytest.approx(-sum(x * math.log2(x) for x in p if x), abs=1e-9)
    # Gini as the mean absolute difference over twice the mean, with n - 1 in place of n
    spread = sum(abs(a - b) for a, b in itertools.product(p, p)) / (2 * (n - 1))
    assert beyond.gini(shown) == pytest.approx(spread)
    assert beyond.list_means(lists, phi) == pytest.approx([sum(phi[x] for x in r) / len(r) for r in kept])
    total, best = int(phi.sum()), sorted(range(n), key=lambda i: (-phi[i], i))
    groups = [0] * n
    for place, title in enumerate(best):
        before = sum(int(phi[x]) for x in best[:place])
        groups[title] = 0 if 5 * before < total else 1 if 5 * before < 4 * total else 2
    assert beyond.popularity_groups(phi).tolist() == groups
    assert beyond.long_tail_shares(lists, groups) == pytest.approx(
        [sum(groups[x] > 0 for x in r) / len(r) for r in kept]
    )
    gives = [[(groups[x], 1 / math.log2(k + 2)) for k, x in enumerate(r)] for r in kept]
    every = sum(w for row in gives for _, w in row)
    for g, ratio in enumerate(beyond.exposure_ratios(lists, phi, groups)):
        deserved = sum(int(phi[i]) for i in range(n) if groups[i] == g) / total
        got = sum(w for row in gives for h, w in row if h == g) / every
        assert ratio == pytest.approx(got / deserved) if deserved else math.isnan(ratio)


@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3, unique=True), min_size=1, max_size=4))
def test_distance_equals_a_slow_reference(lists: list[list[int]]) -> None:
    words = [*map(beyond.title_words, ["a b c", "a b", "c d", "", "e"])]
    for row, found in zip(lists, beyond.intra_list_distance(lists, words), strict=True):
        pairs = list(itertools.combinations(row, 2))
        alike = [len(words[a] & words[b]) / max(1, len(words[a] | words[b])) for a, b in pairs]
        assert found == pytest.approx(sum(1 - x for x in alike) / len(pairs))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: beyond.exposure([0, 1], 2), r"lists must be whole numbers \[U,K\]"),
        (lambda: beyond.exposure([[0.5]], 2), "lists must be whole numbers"),
        (lambda: beyond.exposure([[2]], 2), "holds title 2; the catalogue has 2"),
        (lambda: beyond.gini([0, 0]), "not 0 for all titles"),
        (lambda: beyond.shannon_entropy([]), "at least one title"),
        (lambda: beyond.popularity_groups([1, -1]), "popularity must be finite, not negative"),
        (lambda: beyond.popularity_lift([1.0], [0.0]), "nothing to compare with"),
        (lambda: beyond.popularity_lift([1.0], [1.0, 2.0]), r"must be \[U\]"),
        (lambda: beyond.exposure_ratios([[-1]], [1], [0]), "nothing is exposed"),
    ],
)
def test_errors_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
