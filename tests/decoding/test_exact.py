"""Exact search against scoring every title of the catalogue."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bearray.decoding import constrained_beam_search, exact_top_k
from bearray.errors import ConfigError, ModelError
from bearray.trie import TokenTrie
from tests.decoding.helpers import EOS, PAD, dict_trie, random_catalogue, random_prompts, tiny_model

torch.set_num_threads(1)
MODELS = [tiny_model(seed) for seed in range(20, 23)]


def score_catalogue(model, ids, mask, titles, normalize):
    """[U, titles] log-probability of every title, one plain forward pass a user."""
    root, rows = dict_trie(titles), []
    width = max(map(len, titles)) + 1
    for user in range(len(ids)):
        prompt = ids[user][mask[user].bool()].tolist()
        batch = torch.tensor([prompt + title + [EOS] + [PAD] * (width - len(title) - 1) for title in titles])
        with torch.no_grad():
            logits = model(input_ids=batch).logits.float()
        scores = []
        for row, title in enumerate(titles):
            node, score = root, 0.0
            for step, token in enumerate([*title, EOS]):
                z = logits[row, len(prompt) - 1 + step]
                score += float(z[token] - (z if normalize == "full" else z[list(node)]).logsumexp(0))
                node = node[token]
            scores.append(score)
        rows.append(scores)
    return torch.tensor(rows)


def assert_true_top(result, scores, k):
    """The result's scores are the k largest, and each title has its own score."""
    top = scores.topk(min(k, scores.shape[1]), dim=1).values
    count = top.shape[1]
    torch.testing.assert_close(result.scores[:, :count], top, rtol=1e-4, atol=2e-5)
    assert (result.scores[:, count:] == -torch.inf).all()
    chosen = result.title_ids[:, :count]
    torch.testing.assert_close(scores.gather(1, chosen), result.scores[:, :count], rtol=1e-4, atol=2e-5)
    assert all(len(set(row)) == count for row in chosen.tolist())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1, 2, 7, 30, 150]),
    lengths=st.lists(st.integers(4, 30), min_size=1, max_size=3),
    shared=st.sampled_from([0, 0, 10, 30]),
    k=st.integers(1, 20),
    normalize=st.sampled_from(["trie", "full"]),
    expand_width=st.sampled_from([1, 3, 16]),
)
def test_equals_scoring_every_title(seed, size, lengths, shared, k, normalize, expand_width):
    titles, model = random_catalogue(seed, size), MODELS[seed % 3]
    ids, mask = random_prompts(seed, lengths, shared=shared)
    trie = TokenTrie.from_sequences(titles)
    result = exact_top_k(model, ids, mask, trie, k=k, normalize=normalize, expand_width=expand_width)
    scores = score_catalogue(model, ids, mask, titles, normalize)
    assert_true_top(result, scores, k)
    assert result.proven.all()
    assert [[titles[i] for i in row if i >= 0] for row in result.title_ids.tolist()] == result.sequences
    # A beam search that says its list is proven must be right.
    beam = constrained_beam_search(model, ids, mask, trie, beam_width=k, normalize=normalize)
    for user in beam.certified.nonzero()[:, 0].tolist():
        torch.testing.assert_close(beam.scores[user], result.scores[user], rtol=1e-4, atol=2e-5)


def test_beam_search_certifies_some_lists_and_not_others():
    titles = random_catalogue(3, 300)
    ids, mask = random_prompts(3, [8] * 40)
    trie = TokenTrie.from_sequences(titles)
    beam = constrained_beam_search(MODELS[0], ids, mask, trie, beam_width=2)
    exact = exact_top_k(MODELS[0], ids, mask, trie, k=2)
    same = (beam.scores - exact.scores).abs().amax(1) < 1e-4
    assert 0 < int(beam.certified.sum()) < 40
    assert same[beam.certified].all()
    assert not same.all()  # beam search does prune better titles here
    unclaimed = constrained_beam_search(MODELS[0], ids, mask, trie, beam_width=2, length_penalty=1.0)
    assert not unclaimed.certified.any()


@pytest.mark.parametrize("normalize", ["trie", "full"])
def test_a_budget_stops_the_search_and_says_what_is_proven(normalize):
    titles = random_catalogue(4, 300)
    ids, mask = random_prompts(5, [8, 20, 14, 9])
    trie = TokenTrie.from_sequences(titles)
    scores = score_catalogue(MODELS[1], ids, mask, titles, normalize)
    exact = exact_top_k(MODELS[1], ids, mask, trie, k=5, normalize=normalize, expand_width=1)
    proven_at = []
    for budget in (1, 4, 16, 64, 1000):
        result = exact_top_k(MODELS[1], ids, mask, trie, k=5, normalize=normalize, node_budget=budget)
        assert int(result.expanded.max()) <= budget
        found = result.scores > -torch.inf
        torch.testing.assert_close(  # what it returns are real titles with their real scores
            scores.gather(1, result.title_ids.clamp(min=0))[found], result.scores[found], rtol=1e-4, atol=2e-5
        )
        same = (result.scores - exact.scores).nan_to_num(posinf=9.0, neginf=-9.0).abs().amax(1) < 1e-4
        assert same[result.proven].all()
        proven_at.append(int(result.proven.sum()))
    assert proven_at == sorted(proven_at)
    assert (proven_at[0], proven_at[-1]) == (0, 4)


def test_a_peaked_model_needs_few_expansions():
    titles = random_catalogue(6, 400)
    ids, mask = random_prompts(6, [12, 30])
    trie = TokenTrie.from_sequences(titles)
    result = exact_top_k(MODELS[2], ids, mask, trie, k=3, expand_width=1)
    assert int(result.expanded.max()) < len(trie) / 10


def test_batches_of_any_size_give_the_same_lists_and_report_progress():
    titles = random_catalogue(9, 150)
    ids, mask = random_prompts(7, [30, 4, 60, 12, 9])
    trie = TokenTrie.from_sequences(titles)
    whole = exact_top_k(MODELS[2], ids, mask, trie)
    seen = []
    parts = exact_top_k(
        MODELS[2], ids, mask, trie, batch_size=2, progress=lambda done, total: seen.append((done, total))
    )
    assert parts.sequences == whole.sequences
    torch.testing.assert_close(parts.scores, whole.scores)
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_bad_settings_are_named():
    trie = TokenTrie.from_sequences([[5, 6], [7]])
    ids, mask = random_prompts(13, [5, 9])
    with pytest.raises(ConfigError, match="k is 0"):
        exact_top_k(MODELS[0], ids, mask, trie, k=0)
    with pytest.raises(ConfigError, match="node_budget is 0"):
        exact_top_k(MODELS[0], ids, mask, trie, node_budget=0)
    with pytest.raises(ConfigError, match="expand_width is 0"):
        exact_top_k(MODELS[0], ids, mask, trie, expand_width=0)
    with pytest.raises(ConfigError, match="normalize is 'x'"):
        exact_top_k(MODELS[0], ids, mask, trie, normalize="x")
    broken = tiny_model(3)
    broken.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="NaN"):
        exact_top_k(broken, ids, mask, trie)
