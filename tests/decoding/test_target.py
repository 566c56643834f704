"""One title's score and rank against plain forward passes over the whole catalogue."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bearray.decoding import bound, constrained_beam_search, exact_top_k, target
from bearray.decoding.target import score_noise, score_titles, target_rank, title_paths
from bearray.errors import ConfigError, DataError
from bearray.trie import TokenTrie
from tests.decoding.helpers import EOS, dict_trie, random_catalogue, random_prompts, tiny_model
from tests.decoding.test_exact import score_catalogue

torch.set_num_threads(1)
MODELS = [tiny_model(seed) for seed in range(20, 23)]
DOUBLES = [tiny_model(seed).double() for seed in range(20, 23)]


def naive_steps(model, prompt, title, titles, normalize, beam_width):
    """(log-probability, more probable ones, number, beta) of each step: a forward pass of the whole sequence
    a step, in plain Python."""
    root, found = dict_trie(titles), []
    for step, token in enumerate([*title, EOS]):
        with torch.no_grad():
            z = model(input_ids=torch.tensor([prompt + title[:step]])).logits[0, -1].tolist()
        node = root
        for before in title[:step]:
            node = node[before]
        over = list(node) if normalize == "trie" else range(len(z))
        top = max(z)
        norm = top + math.log(sum(math.exp(z[v] - top) for v in over))
        log_probs = sorted((z[v] - norm for v in node), reverse=True)
        own = z[token] - norm
        beta = log_probs[min(beam_width, len(node)) - 1]
        found.append((own, sum(p > own for p in log_probs), len(node), beta))
    return found


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1, 2, 7, 60]),
    lengths=st.lists(st.integers(4, 20), min_size=1, max_size=3),
    beam_width=st.integers(1, 12),
    normalize=st.sampled_from(["trie", "full"]),
    batch_size=st.sampled_from([None, 1, 2]),
)
def test_steps_equal_a_forward_pass_each(seed, size, lengths, beam_width, normalize, batch_size):
    titles = random_catalogue(seed, size)
    ids, mask = random_prompts(seed, lengths)
    wanted = torch.randint(size, (len(ids),), generator=torch.Generator().manual_seed(seed))
    scores = score_titles(
        MODELS[seed % 3], ids, mask, TokenTrie.from_sequences(titles), wanted,
        beam_width=beam_width, normalize=normalize, batch_size=batch_size,
    )  # fmt: skip
    for user, title in enumerate(wanted.tolist()):
        prompt = ids[user][mask[user].bool()].tolist()
        naive = naive_steps(DOUBLES[seed % 3], prompt, titles[title], titles, normalize, beam_width)
        steps = len(titles[title]) + 1
        assert int(scores.steps[user]) == steps == len(naive)
        own, above, number, beta = (list(column) for column in zip(*naive, strict=True))
        assert scores.step_log_prob[user, :steps].tolist() == pytest.approx(own, rel=1e-4, abs=1e-4)
        assert scores.beta[user, :steps].tolist() == pytest.approx(beta, rel=1e-4, abs=1e-4)
        assert scores.rank[user, :steps].tolist() == above
        assert scores.valid[user, :steps].tolist() == number
        assert scores.violated[user, :steps].tolist() == [place >= beam_width for place in above]
        assert float(scores.log_prob[user]) == pytest.approx(sum(own), rel=1e-4, abs=1e-4)
        for tensor in (scores.step_log_prob, scores.rank, scores.valid, scores.beta):
            assert not tensor[user, steps:].any()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1, 2, 7, 30, 150]),
    lengths=st.lists(st.integers(4, 30), min_size=1, max_size=3),
    normalize=st.sampled_from(["trie", "full"]),
    expand_width=st.sampled_from([1, 3, 64]),
    batch_size=st.sampled_from([None, 2]),
)
def test_rank_equals_scoring_every_title(seed, size, lengths, normalize, expand_width, batch_size):
    titles, model = random_catalogue(seed, size), MODELS[seed % 3]
    ids, mask = random_prompts(seed, lengths)
    scores = score_catalogue(model, ids, mask, titles, normalize)
    # The best, the worst, or any: the rank of a probable title is the interesting one.
    place = torch.randint(size, (len(ids),), generator=torch.Generator().manual_seed(seed)) * (seed % 4 > 0)
    wanted = scores.sort(dim=1, descending=True).indices.gather(1, place[:, None])[:, 0]
    result = target_rank(
        model, ids, mask, TokenTrie.from_sequences(titles), wanted,
        normalize=normalize, expand_width=expand_width, batch_size=batch_size,
    )  # fmt: skip
    own = scores.gather(1, wanted[:, None])
    torch.testing.assert_close(result.log_prob, own[:, 0], rtol=1e-4, atol=2e-5)
    near = 2 * score_noise(own, torch.float32)
    assert (result.ranks >= (scores > own + near).sum(1)).all()
    assert (result.ranks <= (scores > own + near / 4).sum(1)).all()
    assert result.proven.all()


def reference_rank(model, ids, mask, titles, wanted, normalize):
    scores = score_catalogue(model, ids, mask, titles, normalize)
    own = scores.gather(1, torch.tensor(wanted)[:, None])
    return (scores > own + 1e-3).sum(1)  # random scores are further apart than that


@pytest.mark.parametrize("normalize", ["trie", "full"])
def test_a_budget_makes_the_rank_a_lower_bound(normalize):
    titles = random_catalogue(4, 300)
    ids, mask = random_prompts(5, [8, 20, 14, 9])
    trie, wanted = TokenTrie.from_sequences(titles), [7, 100, 200, 299]
    true = reference_rank(MODELS[1], ids, mask, titles, wanted, normalize)
    before, proven = torch.zeros(4), []
    for budget in (1, 4, 16, 64, 1000):
        result = target_rank(MODELS[1], ids, mask, trie, wanted, normalize=normalize, node_budget=budget)
        assert int(result.expanded.max()) <= budget
        assert (result.ranks <= true).all()
        assert (result.ranks == true)[result.proven].all()
        assert (result.ranks >= before).all()
        before = result.ranks
        proven.append(int(result.proven.sum()))
    assert proven == sorted(proven)
    assert (proven[0], proven[-1]) == (0, 4)


def test_going_deep_first_finds_titles_before_the_budget_is_spent(monkeypatch):
    """A model that knows nothing: every short prefix is more probable than any long one."""
    model = tiny_model(40)
    with torch.no_grad():
        model.lm_head.weight.mul_(0.01)
    titles = [[first, *range(first, first + 7)] for first in range(3, 100)]
    ids, mask = random_prompts(5, [8, 20])
    settings = {"normalize": "full", "node_budget": 30, "expand_width": 1}
    trie = TokenTrie.from_sequences(titles)
    scores = score_catalogue(model, ids, mask, titles, "full")
    worst = scores.argmin(1).tolist()
    assert min(target_rank(model, ids, mask, trie, worst, **settings).ranks) >= 10
    monkeypatch.delattr(target._Count, "urgency")  # most probable first
    assert target_rank(model, ids, mask, trie, worst, **settings).ranks.tolist() == [0, 0]


@pytest.mark.parametrize("normalize", ["trie", "full"])
def test_no_more_than_the_prefixes_above_the_title_are_expanded(normalize):
    titles = random_catalogue(8, 120)
    ids, mask = random_prompts(6, [12, 30])
    trie = TokenTrie.from_sequences(titles)
    exact = exact_top_k(MODELS[2], ids, mask, trie, k=1, normalize=normalize, expand_width=1)
    best = target_rank(MODELS[2], ids, mask, trie, exact.title_ids[:, 0], normalize=normalize)
    assert best.ranks.tolist() == [0, 0]
    assert (best.expanded <= exact.expanded).all()


@pytest.mark.parametrize("normalize", ["trie", "full"])
def test_forgetting_what_was_computed_changes_nothing_but_time(monkeypatch, normalize):
    titles = random_catalogue(14, 300)
    ids, mask = random_prompts(14, [8, 20, 14])
    trie = TokenTrie.from_sequences(titles)
    wanted = [17, 150, 290]
    ranks = target_rank(MODELS[0], ids, mask, trie, wanted, normalize=normalize, expand_width=8)
    top = exact_top_k(MODELS[0], ids, mask, trie, k=12, normalize=normalize)
    for limits in ({"_MOST_SLOTS": 20}, {"_PASS_TOKENS": 5, "_MOST_SLOTS": 0}, {"_TABLE": 10}):
        with monkeypatch.context() as small:
            for name, value in limits.items():
                small.setattr(bound, name, value)
            again = target_rank(MODELS[0], ids, mask, trie, wanted, normalize=normalize, expand_width=8)
            assert again.ranks.tolist() == ranks.ranks.tolist()
            assert again.expanded.tolist() == ranks.expanded.tolist()  # the same prefixes, in any order
            top_again = exact_top_k(MODELS[0], ids, mask, trie, k=12, normalize=normalize)
            assert top_again.title_ids.tolist() == top.title_ids.tolist()
            torch.testing.assert_close(top_again.scores, top.scores)
    assert ranks.ranks.tolist() == reference_rank(MODELS[0], ids, mask, titles, wanted, normalize).tolist()


@pytest.mark.parametrize("normalize", ["trie", "full"])
def test_ties_do_not_count(normalize):
    """Two tokens with the same row of the output projection and the same embedding make equal titles."""
    model = tiny_model(30)
    with torch.no_grad():
        for weight in (model.lm_head.weight, model.model.embed_tokens.weight):
            weight[[50, 51, 52]] = weight[50].clone()
    titles = [[50, 9], [51, 9], [52, 9, 4], [52, 9], [7], [8, 50]]
    ids, mask = random_prompts(3, [7, 12])
    trie = TokenTrie.from_sequences(titles)
    scores = score_catalogue(model, ids, mask, titles, normalize)
    first, second = (
        target_rank(model, ids, mask, trie, [title] * 2, normalize=normalize).ranks.tolist()
        for title in (0, 1)
    )
    assert first == second == [int((row > row[0] + 1e-3).sum()) for row in scores]


def test_a_catalogue_of_one_title():
    trie = TokenTrie.from_sequences([[5, 6, 7]])
    ids, mask = random_prompts(3, [7, 12])
    certain = score_titles(MODELS[0], ids, mask, trie, [0, 0])
    assert certain.log_prob.tolist() == [0, 0] and certain.valid.tolist() == [[1] * 4] * 2
    result = target_rank(MODELS[0], ids, mask, trie, [0, 0])
    assert result.ranks.tolist() == [0, 0] and result.proven.all()
    assert result.expanded.tolist() == [1, 1]


def test_a_kept_title_has_the_score_that_beam_search_gives_it():
    titles = random_catalogue(21, 200)
    ids, mask = random_prompts(21, [8, 30, 14])
    trie = TokenTrie.from_sequences(titles)
    for dtype in (torch.float32, torch.bfloat16):
        model = tiny_model(21).to(dtype)
        beam = constrained_beam_search(model, ids, mask, trie, beam_width=5)
        for place in range(5):
            own = score_titles(model, ids, mask, trie, beam.title_ids[:, place]).log_prob
            assert ((own - beam.scores[:, place]).abs() <= score_noise(own, dtype)).all()


def test_paths():
    trie = TokenTrie.from_sequences([[5, 6], [5], [7, 8, 9]])
    last = torch.tensor([trie.find([5, 6]), trie.find([5]), trie.find([7, 8, 9])])
    path, steps = title_paths(trie, last)
    assert steps.tolist() == [3, 2, 4]
    expected = [[[5], [5, 6]], [[5]], [[7], [7, 8], [7, 8, 9]]]
    for row, prefixes in zip(path.tolist(), expected, strict=True):
        assert row == ([0] + [trie.find(p) for p in prefixes] + [0] * 3)[:4]


def test_bad_input_is_named():
    trie = TokenTrie.from_sequences([[5, 6], [7], [5, 6]])
    ids, mask = random_prompts(13, [5, 9])
    with pytest.raises(DataError, match=r"titles\[1\] is 3, but the trie's titles are 0 to 2"):
        target_rank(MODELS[0], ids, mask, trie, [0, 3])
    with pytest.raises(DataError, match=r"titles\[0\] is 2, whose tokens an earlier title has"):
        score_titles(MODELS[0], ids, mask, trie, [2, 0])
    with pytest.raises(DataError, match=r"titles has shape \[1\]; it needs one title for each of 2 users"):
        score_titles(MODELS[0], ids, mask, trie, [0])
    with pytest.raises(ConfigError, match="beam_width is 0"):
        score_titles(MODELS[0], ids, mask, trie, [0, 0], beam_width=0)
    with pytest.raises(ConfigError, match="node_budget is 0"):
        target_rank(MODELS[0], ids, mask, trie, [0, 0], node_budget=0)
    with pytest.raises(ConfigError, match="expand_width is 0"):
        target_rank(MODELS[0], ids, mask, trie, [0, 0], expand_width=0)
    with pytest.raises(ConfigError, match="normalize is 'x'"):
        target_rank(MODELS[0], ids, mask, trie, [0, 0], normalize="x")
