"""Decoding without padding (`bearray.packed_queries`): what padded rows give, from fewer tokens."""

from __future__ import annotations

import pytest
import torch

from bearray.decoding.beam import constrained_beam_search
from bearray.decoding.exact import exact_top_k
from bearray.efficiency.counters import counting
from bearray.forward import use_tree_attention
from bearray.trie import TokenTrie
from tests.decoding.helpers import EOS, FAMILIES, PAD, random_catalogue, random_prompts, tiny_model

torch.set_num_threads(1)
TITLES = random_catalogue(12, 90)
TRIE = TokenTrie.from_sequences(TITLES)
READS_TREES = [family for family in FAMILIES if family != "gemma2"]  # eager attention: it reads padded rows


@pytest.mark.parametrize("shared", [False, True], ids=["nothing shared", "shared start"])
@pytest.mark.parametrize("normalize", ["trie", "full"])
@pytest.mark.parametrize(
    ("family", "settings"),
    [(family, {}) for family in READS_TREES] + [("mistral", {"sliding_window": 6})],
)
def test_packed_tokens_give_what_padded_rows_give(family, settings, normalize, shared):
    model = tiny_model(7, family, **settings)
    ids, mask = random_prompts(4, [24, 13, 9, 17, 24])
    if shared:
        start = torch.arange(10, 22).expand(len(ids), -1)
        ids, mask = _behind(start, ids, mask)

    def found(search):
        with counting(model.base_model, PAD) as passes:
            result = search(model, ids, mask, TRIE, normalize=normalize, eos_token_id=EOS)
        return result, passes.tokens

    for search in (constrained_beam_search, exact_top_k):
        model.config._attn_implementation = "sdpa"
        padded, many = found(search)
        assert use_tree_attention(model, "cpu")
        packed, few = found(search)
        assert packed.title_ids.tolist() == padded.title_ids.tolist()
        torch.testing.assert_close(packed.scores, padded.scores, rtol=1e-4, atol=1e-5)
        assert few < many


def _behind(start, ids, mask):
    """Left-padded prompts [U, T] that begin with `start` [U, S]."""
    rows = [torch.cat([s, own[seen.bool()]]) for s, own, seen in zip(start, ids, mask, strict=True)]
    width = max(map(len, rows))
    ids = torch.stack([torch.nn.functional.pad(row, (width - len(row), 0), value=PAD) for row in rows])
    mask = torch.stack([torch.arange(width) >= width - len(row) for row in rows])
    return ids, mask.long()
