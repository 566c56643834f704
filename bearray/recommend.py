"""Windows in, recommended titles out: what validation and evaluation both do, with any decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bearray.baselines.cache import Fitted
from bearray.baselines.sasrec import load_or_train_sasrec
from bearray.batching import left_pad
from bearray.config import DecodingConfig, SASRecConfig, override
from bearray.decoding import (
    BeamResult,
    TitleEmbeddings,
    TitleFilter,
    constrained_beam_search,
    d3_beam_search,
    diverse_beam_search,
    embed_titles,
    exact_top_k,
    greedy_search,
    grounded_beam_search,
)
from bearray.extras import interaction_counts
from bearray.task import Case, Task


class DecoderInputs:
    """What decoders need beside a model, made from a task; what only some need is made when first asked for.

    Args:
        task: the data in tokens.
        device: of the models that will decode.
    """

    def __init__(self, task: Task, device: torch.device | str) -> None:
        self._task = task
        self.device = torch.device(device)
        self.trie = task.catalog.trie.to(self.device)
        self.pad_token_id = task.pad_token_id
        self._popularity: Tensor | None = None
        self._embeddings: TitleEmbeddings | None = None
        self._sasrec: dict[int | None, Fitted] = {}

    def popularity(self) -> Tensor:
        """[titles] float32 on the CPU: how often each title was interacted with in training."""
        if self._popularity is None:
            catalog = self._task.catalog
            counts = interaction_counts(self._task.dataset.train, catalog.title_of_item, len(catalog))
            self._popularity = torch.from_numpy(counts).float()
        return self._popularity

    def text_free_scores(self, cases: Sequence[Case], decoding: DecodingConfig) -> Tensor:
        """[U, titles] logits of D3's model without text; SASRec is trained when first asked for."""
        if decoding.d3_scores == "popularity":
            # Counts plus one as probabilities: a title that training lacks stays possible.
            return self.popularity().add(1).log().expand(len(cases), -1)
        return self.sasrec(decoding.d3_sasrec_epochs).title_scores([c.history_titles for c in cases])

    def sasrec(self, epochs: int | None = None) -> Fitted:
        """SASRec with its default settings, but for `epochs`; found in this machine's cache or trained when
        first asked for."""
        if epochs not in self._sasrec:
            own: dict[str, Any] = (
                {"config": override(SASRecConfig(), {"train.epochs": epochs})} if epochs else {}
            )
            task = self._task
            self._sasrec[epochs] = load_or_train_sasrec(task.dataset, task.catalog.title_of_item, **own)
        return self._sasrec[epochs]

    def title_embeddings(self, model: nn.Module) -> TitleEmbeddings:
        """The titles' vectors under the base model, which must be the same one in all calls."""
        if self._embeddings is None:
            self._embeddings = embed_titles(model, self.trie, prefix=self._task.backbone.bos_tokens)
        return self._embeddings


def recommend(
    model: nn.Module, cases: Sequence[Case], decoding: DecodingConfig, inputs: DecoderInputs
) -> tuple[np.ndarray, np.ndarray]:
    """Decode windows.

    Returns:
        Title ids [U, B], -1 where the decoder found fewer, and scores [U, B] float32, -inf there; best first.

    Raises:
        BearrayError: as the decoder of `decoding.method`.
    """
    titles, scores, _ = recommend_with_proof(model, cases, decoding, inputs)
    return titles, scores


def recommend_with_proof(
    model: nn.Module, cases: Sequence[Case], decoding: DecodingConfig, inputs: DecoderInputs
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `recommend`, and [U] bool: which lists are proven to be the true best ones."""
    shape = (len(cases), decoding.beam_width)
    titles, scores = np.full(shape, -1, dtype=np.int64), np.full(shape, -np.inf, dtype=np.float32)
    proven = np.zeros(len(cases), dtype=bool)
    if cases:
        found = _decode(model, cases, decoding, inputs)
        width = found.scores.shape[1]  # greedy search returns one title
        titles[:, :width], scores[:, :width] = found.title_ids.numpy(), found.scores.numpy()
        proven[:] = found.certified.numpy()
    return titles, scores, proven


def _decode(
    model: nn.Module, cases: Sequence[Case], decoding: DecodingConfig, inputs: DecoderInputs
) -> BeamResult:
    input_ids, attention_mask = left_pad([c.prompt for c in cases], inputs.pad_token_id)
    asked = (model, input_ids.to(inputs.device), attention_mask.to(inputs.device), inputs.trie)
    titles = TitleFilter(deny=[c.history_titles for c in cases]) if decoding.exclude_history else None
    normalize, width = decoding.normalize, decoding.beam_width
    common: dict[str, Any] = {"titles": titles, "batch_size": decoding.batch_size}
    penalised = common | {"beam_width": width, "length_penalty": decoding.length_penalty}
    if decoding.method == "exact":
        return exact_top_k(
            *asked, k=width, normalize=normalize, node_budget=decoding.exact_node_budget, **common
        )
    if decoding.method == "d3":
        text_free = inputs.text_free_scores(cases, decoding)
        return d3_beam_search(*asked, text_free, alpha=decoding.d3_alpha, normalize=normalize, **penalised)
    if decoding.method == "diverse":
        return diverse_beam_search(
            *asked,
            beam_width=width,
            groups=decoding.diverse_groups,
            penalty=decoding.diverse_penalty,
            normalize=normalize,
            **common,
        )
    if decoding.method == "greedy":
        return greedy_search(*asked, normalize=normalize, **common)
    if decoding.method == "grounding":
        return grounded_beam_search(
            *asked,
            embeddings=inputs.title_embeddings(model),
            generation_beams=decoding.grounding_beams,
            side_scores=inputs.popularity(),
            gamma=decoding.grounding_gamma,
            **penalised,
        )
    return constrained_beam_search(*asked, normalize=normalize, **penalised)


def target_ranks(cases: Sequence[Case], titles: np.ndarray) -> np.ndarray:
    """Rank of each target's title among the recommended ones [U, B]: 0-based, inf for a miss."""
    hits = titles == np.array([c.target_title for c in cases], dtype=np.int64).reshape(-1, 1)
    ranks: np.ndarray = np.where(hits.any(axis=1), hits.argmax(axis=1), np.inf)
    return ranks
