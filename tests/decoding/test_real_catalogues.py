"""Beam search and exact search over real titles."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd
import pytest
import torch

from bearray.decoding import constrained_beam_search, exact_top_k
from bearray.trie import TokenTrie
from tests.decoding.helpers import assert_same_lists, generate, random_prompts, tiny_model

torch.set_num_threads(1)


def word_catalogue(name: str) -> tuple[list[list[int]], int]:
    """(distinct titles as word ids from 3 on, number of ids); titles end with a quote, as answers do."""
    root = Path(os.environ.get("BEARRAY_DATA") or Path(__file__).parents[3] / "shared" / "data")
    file = root / name / "items.parquet"
    if not file.exists():
        pytest.skip(f"no data set {name} (set BEARRAY_DATA)")
    ids: dict[str, int] = {}
    titles: dict[tuple[int, ...], None] = {}
    for title in pd.read_parquet(file)["title"]:
        words = re.findall(r"\w+|[^\w\s]", f'{title}"')
        titles[tuple(ids.setdefault(word, len(ids) + 3) for word in words)] = None
    return [list(title) for title in titles], len(ids) + 3


@pytest.mark.data
@pytest.mark.parametrize("name", ["office", "book"])
def test_real_titles(name):
    titles, vocabulary = word_catalogue(name)
    model = tiny_model(31, vocab=vocabulary)
    ids, mask = random_prompts(1, [40, 4, 23], vocab=vocabulary)
    trie = TokenTrie.from_sequences(titles)
    for normalize, length_penalty in (("trie", 0.0), ("full", 0.0), ("trie", 1.0), ("full", 1.0)):
        result = constrained_beam_search(
            model, ids, mask, trie, normalize=normalize, length_penalty=length_penalty
        )
        expected = generate(
            model, ids, mask, titles, beam_width=10, normalize=normalize, length_penalty=length_penalty
        )
        assert_same_lists(result, expected)
        if length_penalty == 0:
            # An untrained model spreads over the vocabulary: with "full" a proof needs most of the trie.
            exact = exact_top_k(model, ids, mask, trie, normalize=normalize, node_budget=200)
            assert exact.proven.all() or normalize == "full"
            proven = exact.proven
            assert (exact.scores[proven] >= result.scores[proven] - 1e-3).all()
            both = proven & result.certified
            torch.testing.assert_close(exact.scores[both], result.scores[both], rtol=1e-4, atol=2e-5)
