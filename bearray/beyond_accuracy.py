"""What recommendations are like beside being right: coverage, popularity, novelty, diversity, exposure.

All measures are of lists of titles and need no scores. Popularity is the number of training windows whose
target is the title. Axes and symbols: U test cases, K list places, I titles of the catalogue; L_u the list
of a case; phi(i) the popularity of a title; e(i) its exposure; an empty place is a negative id. A mean over
a list is undefined for an empty one: NaN, which whoever averages over cases leaves out and counts.

Sources:
    [1] Ge, Delgado-Battenfeld, Jannach: Beyond accuracy. RecSys 2010 (catalogue coverage).
    [2] Adomavicius, Kwon: Improving aggregate recommendation diversity. IEEE TKDE 24(5), 2012.
    [3] Shani, Gunawardana: Evaluating recommendation systems. Recommender Systems Handbook, 2011 (Gini
        index and Shannon entropy of what is recommended).
    [4] Yin, Cui, Li, Yao, Chen: Challenging the long tail recommendation. VLDB 2012 (average popularity).
    [5] Abdollahpouri, Burke, Mobasher: Managing popularity bias in recommender systems with personalized
        re-ranking. FLAIRS 2019, arXiv 1901.07555 (ARP, APLT).
    [6] Abdollahpouri, Mansoury, Burke, Mobasher: The connection between popularity bias, calibration, and
        fairness in recommendation. RecSys 2020 (popularity lift).
    [7] Abdollahpouri, Mansoury, Burke, Mobasher, Malthouse: User-centered evaluation of popularity bias in
        recommender systems. UMAP 2021, arXiv 2103.06364 (head, mid and tail by shares of interactions).
    [8] Zhou et al.: Solving the apparent diversity-accuracy dilemma of recommender systems. PNAS 107(10),
        2010; Castells, Hurley, Vargas: Novelty and diversity in recommender systems. Recommender Systems
        Handbook, 2015 (self-information).
    [9] Smyth, McClave: Similarity vs. diversity. ICCBR 2001; Ziegler et al.: Improving recommendation lists
        through topic diversification. WWW 2005 (distance within a list).
    [10] Singh, Joachims: Fairness of exposure in rankings. KDD 2018 (exposure by place against merit).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HEAD, MID, TAIL = 0, 1, 2
GROUPS = ("head", "mid", "tail")
"""Names of the groups of `popularity_groups`, by number."""
GROUP_SHARE = 0.2
"""Share of the training targets that make the head, and the tail [7]."""
_WORD = re.compile(r"\w+")


def exposure(lists: ArrayLike, titles: int, *, by_place: bool = False) -> Floats:
    """How much each title is shown: e(i) = sum over lists and places k of v(k) [title at place k is i].

    Args:
        lists: [U,K] title ids, best first; negative: an empty place.
        titles: I, the size of the catalogue.
        by_place: v(k) = 1 / log2(k + 2) for 0-based places, the weight of DCG, as in [10]; else v(k) = 1.

    Returns:
        [I].

    Raises:
        ValueError: lists that are not [U,K], or an id that is not below `titles`.
    """
    found = _lists(lists, titles)
    weight = np.broadcast_to(_place_weights(found.shape[1], by_place), found.shape)
    shown = found >= 0
    return np.bincount(found[shown], weights=weight[shown], minlength=titles).astype(np.float64)


def aggregate_diversity(exposures: ArrayLike) -> int:
    """The number of distinct titles in all lists together, |union of L_u| [2].

    Args:
        exposures: [I] of `exposure`.
    """
    return int((_exposures(exposures) > 0).sum())


def catalogue_coverage(exposures: ArrayLike) -> float:
    """The share of the catalogue that is recommended to anybody, |union of L_u| / I [1]."""
    e = _exposures(exposures)
    return float((e > 0).mean())


def shannon_entropy(exposures: ArrayLike) -> float:
    """How evenly exposure is spread, in bits: H = - sum of p(i) log2 p(i), p(i) = e(i) / sum of e [3].

    0 when everything goes to one title, log2(I) when all titles are shown alike; 2^H is the number of
    titles that would give the same entropy if they were shown alike.
    """
    e = _exposures(exposures)
    p = e[e > 0] / e.sum()
    return float(max(0.0, -(p * np.log2(p)).sum()))


def gini(exposures: ArrayLike) -> float:
    """How unevenly exposure is spread over the whole catalogue [3]:

        G = sum over j = 1..I of (2j - I - 1) p(i_j) / (I - 1),   p ascending.

    0 when all titles are shown alike, 1 when everything goes to one; 0 for a catalogue of one title. Titles
    that are never shown count, with p = 0. With exposure by place it is the inequality of attention [10].
    """
    e = np.sort(_exposures(exposures))
    n = len(e)
    if n == 1:
        return 0.0
    return float(((2 * np.arange(1, n + 1) - n - 1) * (e / e.sum())).sum() / (n - 1))


def list_means(lists: ArrayLike, values: ArrayLike) -> Floats:
    """The mean of a number that each title has, over each list: [U,K], [I] -> [U], NaN for an empty list.

    With phi(i) its mean over the lists is the average recommendation popularity,
    ARP = 1/U sum over u of 1/|L_u| sum over i in L_u of phi(i) [4, 5]. With `self_information` it is novelty:
    the mean self-information of what is recommended [8].

    Raises:
        ValueError: lists that are not [U,K], or an id for which there is no value.
    """
    of = np.asarray(values, dtype=np.float64)
    found = _lists(lists, len(of))
    shown = found >= 0
    total = np.where(shown, of[np.where(shown, found, 0)], 0.0).sum(axis=1)
    return _divided(total, shown.sum(axis=1))


def popularity_lift(list_popularity: ArrayLike, history_popularity: ArrayLike) -> float:
    """How much more popular the lists are than what the users chose before [6]:

        PL = (GAP_q - GAP_p) / GAP_p,   GAP_q, GAP_p: means over cases of a list's and a history's mean phi.

    0: lists are as popular as histories; 1: twice as popular; -0.5: half as popular.

    Args:
        list_popularity, history_popularity: [U] means by `list_means`.

    Raises:
        ValueError: no cases, lengths that differ, or histories without any popularity.
    """
    q, p = (np.asarray(x, dtype=np.float64) for x in (list_popularity, history_popularity))
    if q.ndim != 1 or not len(q) or p.shape != q.shape:
        raise ValueError(f"list and history popularity must be [U], U at least 1; got {q.shape}, {p.shape}")
    if not p.sum() > 0:
        raise ValueError("no title of any history is a training target, so there is nothing to compare with")
    return float(q.sum() / p.sum() - 1)


def popularity_groups(popularity: ArrayLike) -> Ints:
    """Head, mid and tail of the catalogue by shares of the training targets [7].

    Titles are ordered by falling popularity, equal ones by id. The head is the fewest first titles that
    together have at least 20 % of the training targets; the tail is the most last titles that together have
    at most 20 %, so all that were never a target are in it; the rest is the middle.

    Args:
        popularity: [I] phi(i).

    Returns:
        [I] HEAD, MID or TAIL.

    Raises:
        ValueError: no titles, a negative or infinite popularity, or no training target at all.
    """
    phi = _exposures(popularity, "popularity")
    order = np.argsort(-phi, kind="stable")
    before = np.concatenate([[0.0], np.cumsum(phi[order])[:-1]]) / phi.sum()
    # Shares are sums of quotients: 1e-12 keeps the last bits from deciding.
    group = np.where(
        before < GROUP_SHARE - 1e-12, HEAD, np.where(before < 1 - GROUP_SHARE - 1e-12, MID, TAIL)
    )
    found = np.empty(len(phi), dtype=np.int64)
    found[order] = group
    return found


def long_tail_shares(lists: ArrayLike, groups: ArrayLike) -> Floats:
    """The share of each list that is not of the head: |{i in L_u: i in mid or tail}| / |L_u|, [U].

    Its mean over the lists is the average percentage of long-tail items, APLT [5]; NaN for an empty list.

    Args:
        lists: [U,K]. groups: [I] of `popularity_groups`.
    """
    return list_means(lists, (np.asarray(groups) != HEAD).astype(np.float64))


def self_information(popularity: ArrayLike) -> Floats:
    """How surprising a title is, in bits: - log2 p(i), p(i) = (phi(i) + 1) / (sum of phi + I) [8].

    The source has p(i) = phi(i) / sum of phi, which gives infinity for a title that was never a target;
    one is added to every count, so that such titles are the most surprising ones and no more.

    Args:
        popularity: [I] phi(i), not all 0.
    """
    phi = _exposures(popularity, "popularity")
    return np.asarray(-np.log2((phi + 1) / (phi.sum() + len(phi))), dtype=np.float64)


def title_words(title: str) -> frozenset[str]:
    """The words of a title, without case or signs, for `intra_list_distance`."""
    return frozenset(_WORD.findall(title.casefold()))


def intra_list_distance(lists: ArrayLike, words: Sequence[frozenset[str]]) -> Floats:
    """How different the titles of each list are from one another [9]:

        ILD(u) = mean over pairs i < j of L_u of 1 - |w(i) and w(j)| / |w(i) or w(j)|,   w: a title's words.

    The sources take the distance of contents; all that is known of an item here is its title, so this is
    the Jaccard distance of the titles' words: 0, the same words; 1, none in common. Two titles without any
    word are at distance 0.

    Args:
        lists: [U,K]. words: [I] sets by `title_words`.

    Returns:
        [U] means, NaN for a list of fewer than two titles.
    """
    found = _lists(lists, len(words))
    first, second = np.triu_indices(found.shape[1], k=1)
    a, b = np.minimum(found[:, first], found[:, second]), np.maximum(found[:, first], found[:, second])
    present = a >= 0
    pairs, index = np.unique(a[present] * len(words) + b[present], return_inverse=True)
    distance = np.array(
        [_jaccard_distance(words[p // len(words)], words[p % len(words)]) for p in pairs.tolist()]
    )
    each = np.zeros(a.shape)
    each[present] = distance[index.reshape(-1)] if len(pairs) else 0.0
    return _divided(each.sum(axis=1), present.sum(axis=1))


def group_exposures(lists: ArrayLike, groups: ArrayLike) -> tuple[Floats, Floats]:
    """The exposure by place (weights of DCG) that each list gives to head, mid and tail.

    Args:
        lists: [U,K]. groups: [I] of `popularity_groups`.

    Returns:
        ([U,3] to each group, [U] to all together). The sums' quotient is E(G), the share of all exposure that
        a group gets; `exposure_ratios` sets it against what the group deserves.
    """
    of = np.asarray(groups, dtype=np.int64)
    found = _lists(lists, len(of))
    weight = np.broadcast_to(_place_weights(found.shape[1], True), found.shape)
    shown = found >= 0
    group = np.where(shown, of[np.where(shown, found, 0)], -1)
    to = np.stack([np.where(group == g, weight, 0.0).sum(axis=1) for g in range(len(GROUPS))], axis=1)
    return to, np.asarray(to.sum(axis=1), dtype=np.float64)


def target_shares(popularity: ArrayLike, groups: ArrayLike) -> Floats:
    """T(G), the share of the training targets that are of head, mid and tail: [3], what a group deserves if
    exposure should follow what users chose (merit in [10])."""
    phi = _exposures(popularity, "popularity")
    of = np.asarray(groups, dtype=np.int64)
    return np.bincount(of, weights=phi, minlength=len(GROUPS)).astype(np.float64) / phi.sum()


def exposure_ratios(lists: ArrayLike, popularity: ArrayLike, groups: ArrayLike) -> Floats:
    """E(G) / T(G) for head, mid and tail [10]: 1, exposure as deserved; above, more; below, less.

    Returns:
        [3]; NaN for a group without a training target.

    Raises:
        ValueError: as `exposure`, or no list has a title.
    """
    to, every = group_exposures(lists, groups)
    if not every.sum() > 0:
        raise ValueError("no list has a title, so nothing is exposed")
    deserved = target_shares(popularity, groups)
    return _divided(to.sum(axis=0) / every.sum(), deserved)


def _jaccard_distance(a: frozenset[str], b: frozenset[str]) -> float:
    either = len(a | b)
    return 1 - len(a & b) / either if either else 0.0


def _place_weights(places: int, by_place: bool) -> Floats:
    return 1.0 / np.log2(np.arange(places) + 2.0) if by_place else np.ones(places)


def _divided(total: NDArray[Any], by: NDArray[Any]) -> Floats:
    result: Floats = np.full(np.shape(total), np.nan)
    np.divide(total, by, out=result, where=np.asarray(by) > 0)
    return result


def _lists(lists: ArrayLike, titles: int) -> Ints:
    found = np.asarray(lists)
    if found.ndim != 2 or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"lists must be whole numbers [U,K]; got {found.dtype} {found.shape}")
    if found.size and found.max() >= titles:
        raise ValueError(f"a list holds title {found.max()}; the catalogue has {titles} titles, from 0")
    return found.astype(np.int64)


def _exposures(values: ArrayLike, name: str = "exposure") -> Floats:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not len(found):
        raise ValueError(f"{name} must be one number a title, of at least one title; got shape {found.shape}")
    if not (np.isfinite(found).all() and (found >= 0).all() and found.sum() > 0):
        raise ValueError(f"{name} must be finite, not negative, and not 0 for all titles")
    return found
