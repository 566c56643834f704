"""How sure a mean or a comparison is, when a user contributes several test cases.

Test cases of one user are alike (in Office, 58 % of the test windows come from users with several), so
users are what is resampled and what signs are flipped for, never rows. Everything is deterministic by seed.

Users with equal data are exchangeable: how often each distinct kind of user is drawn is multinomial, and
the sum of their signs is binomial (a random bit for a user who is alone of a kind). Drawing those counts
instead of the users one by one gives the same distribution in a fraction of the time, since most users of a
recommender have one test case and no hit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_CHUNK = 4_000_000
"""Numbers drawn at a time; bounds memory to some tens of megabytes."""

_EXACT = 14
"""Up to this many users who differ, all sign patterns are enumerated (16,384)."""


@dataclass(frozen=True)
class PairedTest:
    """A comparison of two methods on the same test cases."""

    mean_difference: float
    """Mean over users of the user's mean (a - b)."""
    low: float
    """Lower end of its 95% bootstrap interval."""
    high: float
    """Upper end."""
    p_value: float
    """Two-sided p-value of the hypothesis that each user's difference is symmetric around 0."""
    users: int
    """Users compared."""


def bootstrap_interval(
    values: ArrayLike, users: ArrayLike, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """The mean over test cases and its percentile interval from a cluster bootstrap over users.

    Each draw takes as many users as there are, with replacement, with all their test cases; the mean is
    over the test cases drawn. If all users are equal, or there is only one, the interval has no width: such
    data says nothing about other users.

    Args:
        values: [U] one finite number a test case.
        users: [U] whose test case it is.
        level: coverage, between 0 and 1. draws: bootstrap samples. seed: of the random numbers.

    Returns:
        (mean, low, high).

    Raises:
        ValueError: no values, lengths that differ, a value that is not finite, or a level or number of
            draws that cannot be.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}; it must be between 0 and 1")
    if draws < 1:
        raise ValueError(f"draws is {draws!r}; it must be at least 1")
    sums, counts = _per_user(values, users)
    kinds, multiplicity = np.unique(np.stack([sums, counts], axis=1), axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    means = []
    for size in _chunks(draws, len(kinds)):
        drawn = rng.multinomial(len(sums), multiplicity / len(sums), size=size)
        total = drawn @ kinds
        means.append(total[:, 0] / total[:, 1])
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(sums.sum() / counts.sum()), float(low), float(high)


def bootstrap_ratios(
    numerators: ArrayLike,
    denominators: ArrayLike,
    users: ArrayLike,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Floats:
    """Ratios of sums over test cases, sum(numerators) / sum(denominators), with percentile intervals from a
    cluster bootstrap over users; all columns from the same draws.

    A mean over some of the test cases is such a ratio: the denominator is 1 for these and 0 for the others.
    Draws in which a column's denominators sum to 0 do not count for it.

    Args:
        numerators, denominators: [U,M] finite numbers, the latter not negative: M ratios.
        users: [U] whose test case it is.
        level, draws, seed: as in `bootstrap_interval`.

    Returns:
        [M,3]: value, low and high of each ratio; NaN where all denominators are 0.

    Raises:
        ValueError: no values, shapes that differ, a value that is not finite, or a negative denominator.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}; it must be between 0 and 1")
    if draws < 1:
        raise ValueError(f"draws is {draws!r}; it must be at least 1")
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    u = np.asarray(users)
    if above.ndim != 2 or not len(above) or below.shape != above.shape or u.shape != above.shape[:1]:
        raise ValueError(
            "numerators and denominators must be [U,M] and users [U], U at least 1; got "
            f"{above.shape}, {below.shape} and {u.shape}"
        )
    if not (np.isfinite(above).all() and np.isfinite(below).all() and (below >= 0).all()):
        raise ValueError("numerators and denominators must be finite, and no denominator below 0")
    index: NDArray[Any] = np.unique(u, return_inverse=True)[1].reshape(-1)
    of_user = np.zeros((int(index.max()) + 1, 2 * above.shape[1]))
    np.add.at(of_user, index, np.concatenate([above, below], axis=1))
    n, columns = len(of_user), above.shape[1]
    rng = np.random.default_rng(seed)
    sums = []
    for size in _chunks(draws, n):
        drawn = rng.integers(0, n, size=(size, n)) + n * np.arange(size)[:, None]
        times = np.bincount(drawn.reshape(-1), minlength=size * n).reshape(size, n)
        sums.append(times @ of_user)
    total = np.concatenate(sums)
    found = np.full((columns, 3), np.nan)
    for column in range(columns):
        whole = of_user[:, columns + column].sum()
        if whole > 0:
            counted = total[:, columns + column] > 0
            ratios = total[counted, column] / total[counted, columns + column]
            ends = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
            found[column] = of_user[:, column].sum() / whole, *ends
    return found


def paired_test(
    values_a: ArrayLike, values_b: ArrayLike, users: ArrayLike, *, draws: int = 20_000, seed: int = 0
) -> PairedTest:
    """Do two methods differ on the same test cases? A sign-flip permutation test over users' mean
    differences.

    Under the hypothesis that neither is better, a user's difference could as well have had the other sign.
    Up to 14 users who differ, all sign patterns are counted; beyond, `draws` random ones, and the p-value
    is (1 + as extreme ones) / (1 + draws), which is valid for any number of draws. Users without a
    difference have no influence.

    Args:
        values_a, values_b: [U] the methods' values for the same test cases, e.g. `bearray.metrics.gains`.
        users: [U] whose test case it is.

    Raises:
        ValueError: no values, lengths that differ, or a value that is not finite.
    """
    a, b = np.asarray(values_a, dtype=np.float64), np.asarray(values_b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(
            f"the methods have {a.shape} and {b.shape} values; a paired test needs the same test cases"
        )
    if draws < 1:
        raise ValueError(f"draws is {draws!r}; it must be at least 1")
    sums, counts = _per_user(a - b, users)
    difference = sums / counts
    mean, low, high = bootstrap_interval(difference, np.arange(len(difference)), seed=seed)
    return PairedTest(mean, low, high, _sign_flip_p(difference, draws, seed), len(difference))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: p-values that stay valid when several comparisons are made.

    The i-th smallest of m p-values becomes the largest of (m - j + 1) * p_(j) over j <= i, at most 1.

    Args:
        p_values: one a comparison, in any order.

    Returns:
        Adjusted p-values in the same order.

    Raises:
        ValueError: a p-value outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must be a list of numbers in [0, 1]; got {list(p_values)!r}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [float(x) for x in adjusted]


def _sign_flip_p(difference: Floats, draws: int, seed: int) -> float:
    sizes, inverse = np.unique(np.abs(difference), return_inverse=True)
    differing = difference != 0
    observed = abs(difference.sum())
    # Sums of the same numbers in another order differ in the last bits; they count as equal.
    observed -= 1e-12 * np.abs(difference).sum()
    m = int(differing.sum())
    if m == 0:
        return 1.0
    if m <= _EXACT:
        signs = 1.0 - 2.0 * ((np.arange(2**m)[:, None] >> np.arange(m)) & 1)
        return float((np.abs(signs @ difference[differing]) >= observed).mean())
    number = np.bincount(inverse.reshape(-1), minlength=len(sizes))
    alone = number == 1  # a single sign is a random bit, which is much cheaper than a binomial number
    own, shared, number = sizes[alone], sizes[~alone], number[~alone]
    rng = np.random.default_rng(seed)
    extreme = 0
    for size in _chunks(draws, len(sizes)):
        positive = rng.binomial(number, 0.5, size=(size, len(number)))
        bits = rng.integers(0, 256, size=(size, -(-len(own) // 8)), dtype=np.uint8)
        signs = 2.0 * np.unpackbits(bits, axis=1, count=len(own)) - 1.0
        sums = (2.0 * positive - number) @ shared + signs @ own
        extreme += int((np.abs(sums) >= observed).sum())
    return (1 + extreme) / (1 + draws)


def _per_user(values: ArrayLike, users: ArrayLike) -> tuple[Floats, Floats]:
    """Sum and number of the values of each user."""
    v, u = np.asarray(values, dtype=np.float64), np.asarray(users)
    if v.ndim != 1 or v.size == 0:
        raise ValueError(f"values must be a list of at least one number; got shape {v.shape}")
    if u.shape != v.shape:
        raise ValueError(
            f"there are {v.size} values, but users has shape {u.shape}; each value needs its user"
        )
    if not np.isfinite(v).all():
        row = int((~np.isfinite(v)).argmax())
        raise ValueError(f"value {row} is {v[row]}; values must be finite")
    index: NDArray[Any] = np.unique(u, return_inverse=True)[1].reshape(-1)
    sums: Floats = np.bincount(index, weights=v).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def _chunks(draws: int, width: int) -> list[int]:
    """`draws` as sizes of chunks with at most `_CHUNK` numbers, `width` a draw."""
    most = max(1, _CHUNK // width)
    return [most] * (draws // most) + ([draws % most] if draws % most else [])
