"""What a trained model recommends, with scores, pruning margins and proofs.

Axis letters: U histories, K titles returned, B beam width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bearray.backbones.base import Backbone
from bearray.batching import left_pad
from bearray.catalog import Catalog
from bearray.config import DecodingConfig, Normalize
from bearray.decoding import BeamResult, TitleFilter, exact_top_k
from bearray.decoding.beam import guided_beam_search
from bearray.decoding.margins import MarginTrace
from bearray.decoding.target import score_titles
from bearray.errors import ConfigError
from bearray.serving.titles import History, TitleIndex


@dataclass(frozen=True)
class Recommendation:
    """One recommended title."""

    title: str
    item_ids: tuple[int, ...]
    """Items that have it, ascending."""
    score: float
    """Log-probability of the title given the history (with a length penalty: divided by tokens **
    penalty)."""
    margin: float
    """How narrowly it got through beam search, in nats (`bearray.decoding.margins`): by how much its least
    certain prefix was more probable than the best one dropped beside it; inf, nothing was dropped. Negative:
    beam search drops it, by so much, and only exact search finds it."""


@dataclass(frozen=True)
class RecommendedList:
    """The titles recommended for one history, best first."""

    history: tuple[str, ...]
    """Titles that the prompt named (the oldest of a long one are cut from it)."""
    unknown: tuple[str, ...]
    """Those of them that are not in the catalogue."""
    items: tuple[Recommendation, ...]
    proven: bool
    """The list is proven to be the true top K of the whole catalogue (of what may be recommended). Beam
    search proves it when all that it dropped was less probable than the last title of the list."""


class Recommender:
    """A trained model with its catalogue and prompts.

    Args:
        model: a causal LM, on its device.
        catalog: titles, in the model's tokens.
        backbone: writes prompts.
        decoding: how the run decoded: beam width, normaliser, length penalty, history, batch size.
        unescape: as the catalogue's titles were cleaned.
        about: what it was opened from, for people: plain values.
    """

    def __init__(
        self,
        model: nn.Module,
        catalog: Catalog,
        backbone: Backbone,
        decoding: DecodingConfig,
        *,
        unescape: bool = True,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.catalog = catalog
        self.backbone = backbone
        self.decoding = decoding
        self.titles = TitleIndex(catalog, unescape=unescape)
        self.about = dict(about or {})
        self._device = next(model.parameters()).device
        self._trie = catalog.trie.to(self._device)

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        *,
        k: int | None = None,
        normalize: Normalize | None = None,
        exclude_history: bool | None = None,
        exact: bool | None = None,
        node_budget: int | None = None,
        unknown_titles: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[RecommendedList]:
        """The best titles for some histories.

        Args:
            histories: [U] titles of each user, oldest first, as the catalogue writes them (white space and
                HTML entities do not matter).
            k: K, titles in a list; None: the run's beam width. Beams are as many as the run's, or K if that
                is more.
            normalize: "trie" or "full", as in `constrained_beam_search`; None: the run's.
            exclude_history: leave out titles of the history; None: as the run did.
            exact: search the whole catalogue by branch and bound; None: as the run did.
            node_budget: prefixes that exact search scores for one history at most; None: until proven.
            unknown_titles: allow titles that the catalogue does not hold.
            progress: called with (histories done, histories in all).

        Raises:
            ConfigError: a number below 1, a K above the number of titles, or an unknown normaliser.
            DataError: an unknown title; the message suggests those that look like it.
        """
        found = [self.titles.history(titles, allow_unknown=unknown_titles) for titles in histories]
        return self.recommend_known(
            found,
            k=k,
            normalize=normalize,
            exclude_history=exclude_history,
            exact=exact,
            node_budget=node_budget,
            progress=progress,
        )

    def recommend_known(
        self,
        histories: Sequence[History],
        *,
        k: int | None = None,
        normalize: Normalize | None = None,
        exclude_history: bool | None = None,
        exact: bool | None = None,
        node_budget: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[RecommendedList]:
        """`recommend` for histories whose titles were looked up before (`self.titles.history`)."""
        own = self.decoding
        k = own.beam_width if k is None else k
        if not 1 <= k <= len(self.catalog):
            raise ConfigError(f"k is {k}; it must be between 1 and {len(self.catalog)}, the number of titles")
        if not histories:
            return []
        with self.backbone.passing():
            search = _Search(
                self,
                histories,
                k=k,
                normalize=own.normalize if normalize is None else normalize,
                exclude_history=own.exclude_history if exclude_history is None else exclude_history,
            )
            if own.method == "exact" if exact is None else exact:
                budget = own.exact_node_budget if node_budget is None else node_budget
                found, margin, proven = search.exactly(budget, progress)
            else:
                found, margin, proven = search.by_beams(progress)
        return [
            RecommendedList(
                history=history.titles,
                unknown=history.unknown,
                items=tuple(
                    Recommendation(
                        self.catalog.titles[title], tuple(self.catalog.items_of_title[title]), score, distance
                    )
                    for title, score, distance in zip(*row, strict=True)
                    if title >= 0
                ),
                proven=bool(sure),
            )
            for history, sure, *row in zip(
                histories,
                proven.tolist(),
                found.title_ids.tolist(),
                found.scores.tolist(),
                margin.tolist(),
                strict=True,
            )
        ]


class _Search:
    """One call of the decoders, for histories with equal settings."""

    def __init__(
        self,
        owner: Recommender,
        histories: Sequence[History],
        *,
        k: int,
        normalize: Normalize,
        exclude_history: bool,
    ) -> None:
        self.owner = owner
        self.k = k
        self.width = max(k, owner.decoding.beam_width)
        prompts = owner.backbone.encode_prompts([h.titles for h in histories])
        ids, mask = left_pad(prompts, owner.backbone.pad_token_id)
        self.asked = (owner.model, ids.to(owner._device), mask.to(owner._device), owner._trie)
        self.common: dict[str, Any] = {
            "normalize": normalize,
            "batch_size": owner.decoding.batch_size,
            "eos_token_id": owner.backbone.eos_token_id,
        }
        self.denied = [h.title_ids for h in histories] if exclude_history else None
        self.titles = TitleFilter(deny=self.denied) if self.denied is not None else None

    def by_beams(self, progress: Callable[[int, int], None] | None) -> tuple[BeamResult, Tensor, Tensor]:
        """Titles [U, K], margins [U, K], proofs [U]."""
        penalty = self.owner.decoding.length_penalty
        found, trace = self._beams(penalty, progress)
        found = _first(found, self.k)
        margin, _ = trace.of(found.title_ids)
        # Of the first K titles, which fewer things dropped can threaten than all B.
        proven = trace.pruned.cpu() <= found.scores[:, -1]
        return found, margin, proven if penalty == 0 else torch.zeros_like(proven)

    def exactly(
        self, budget: int | None, progress: Callable[[int, int], None] | None
    ) -> tuple[BeamResult, Tensor, Tensor]:
        """As `by_beams`, by exact search; a beam search beside it says what beams make of its titles."""
        found = exact_top_k(
            *self.asked, k=self.k, titles=self.titles, node_budget=budget, progress=progress, **self.common
        )
        beams, trace = self._beams(0.0, None)
        margin, cut = trace.of(found.title_ids)
        missed = (found.title_ids[:, :, None] != beams.title_ids[:, None]).all(-1) & (found.title_ids >= 0)
        for user, place in missed.nonzero().tolist():
            step = int(cut[user, place])
            margin[user, place] = min(0.0, self._below(trace, user, int(found.title_ids[user, place]), step))
        return found, margin, found.proven

    def _beams(
        self, penalty: float, progress: Callable[[int, int], None] | None
    ) -> tuple[BeamResult, MarginTrace]:
        trie, users = self.owner._trie, len(self.asked[1])
        trace = MarginTrace(trie, users, self.width, self.owner._device)
        found = guided_beam_search(
            *self.asked,
            beam_width=self.width,
            length_penalty=penalty,
            titles=self.titles,
            observer=trace,
            progress=progress,
            **self.common,
        )
        return found, trace

    def _below(self, trace: MarginTrace, user: int, title: int, step: int) -> float:
        """Nats (0 or less) by which beam search found a title's prefix too improbable.

        Args:
            step: at which the prefix was dropped; 0: only the whole title was, at its end.
        """
        model, ids, mask, trie = self.asked
        one = slice(user, user + 1)
        allowed = TitleFilter(deny=[self.denied[user]]) if self.denied is not None else None
        scores = score_titles(model, ids[one], mask[one], trie, [title], allowed=allowed, **self.common)
        if step:
            prefix = float(scores.step_log_prob[0, :step].sum())
            return prefix - float(trace.bar[user, step - 1])
        return float(scores.log_prob[0] - trace.end_bar[user, int(scores.steps[0]) - 1].cpu())


def _first(found: BeamResult, k: int) -> BeamResult:
    """The first K titles of each list."""
    return replace(
        found,
        sequences=[row[:k] for row in found.sequences],
        scores=found.scores[:, :k],
        title_ids=found.title_ids[:, :k],
    )


def plain(found: RecommendedList, *, item_limit: int | None = None) -> dict[str, Any]:
    """A list as JSON values; a margin of inf is null.

    Args:
        item_limit: item ids named for one title at most; None: all.
    """
    return {
        "history": list(found.history),
        **({"unknown_titles": list(found.unknown)} if found.unknown else {}),
        "proven_exact": found.proven,
        "recommendations": [
            {
                "title": item.title,
                "item_ids": list(item.item_ids[:item_limit]),
                "score": item.score,
                "margin": item.margin if math.isfinite(item.margin) else None,
            }
            for item in found.items
        ],
    }
