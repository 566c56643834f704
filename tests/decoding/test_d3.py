"""D3 against beam search over dictionaries with the text-free model's masses summed title by title."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bearray.decoding import TitleFilter, constrained_beam_search, d3_beam_search
from bearray.errors import ConfigError, DataError
from bearray.trie import TokenTrie
from tests.decoding.helpers import EOS, assert_same_lists, random_catalogue, random_prompts, tiny_model
from tests.decoding.naive import Step, allowed_titles, beam_search, model_step, prompt_of

MODELS = [tiny_model(seed) for seed in range(40, 42)]


def random_scores(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def d3_step(step: Step, titles: list[list[int]], logits: dict[tuple[int, ...], float], alpha: float) -> Step:
    """The step score of D3; `logits` are the text-free model's, by title."""
    top = max(logits.values())
    total = sum(math.exp(z - top) for z in logits.values())
    probability = {title: math.exp(z - top) / total for title, z in logits.items()}

    def blended(prefix: tuple[int, ...], below: dict) -> dict[int, float]:
        mass = {}
        for token in below:
            start = prefix if token == EOS else (*prefix, token)
            mass[token] = 1e-20 + math.fsum(
                probability[tuple(t)]
                for t in titles
                if (tuple(t) == prefix if token == EOS else tuple(t[: len(start)]) == start)
            )
        whole = math.fsum(mass.values())
        return {
            token: alpha * log_prob + (1 - alpha) * math.log(mass[token] / whole)
            for token, log_prob in step(prefix, below).items()
        }

    return blended


def expected_lists(model, ids, mask, titles, scores, *, alpha, beam_width, normalize, allow=None, deny=None):
    lists = []
    for user in range(len(ids)):
        left = allowed_titles(titles, user, allow, deny)
        logits = {tuple(t): float(scores[user, titles.index(t)]) for t in left}
        step = model_step(model, prompt_of(ids, mask, user), normalize)
        lists.append(beam_search(d3_step(step, left, logits, alpha), left, beam_width) if left else [])
    return lists


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1, 2, 9, 40, 90]),
    beam_width=st.integers(1, 8),
    alpha=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    normalize=st.sampled_from(["trie", "full"]),
    spread=st.sampled_from([1.0, 6.0]),
    filtered=st.sampled_from(["", "allow", "deny"]),
)
def test_equals_the_dictionary_version(seed, size, beam_width, alpha, normalize, spread, filtered):
    model, titles = MODELS[seed % 2], random_catalogue(seed, size, longest=6)
    ids, mask = random_prompts(seed, [9, 4, 14])
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(3, size, generator=generator) * spread
    chosen = [torch.randperm(size, generator=generator)[: size // 2].tolist() for _ in range(3)]
    sets = {filtered: chosen} if filtered else {}
    result = d3_beam_search(
        model, ids, mask, TokenTrie.from_sequences(titles), scores, alpha=alpha, beam_width=beam_width,
        normalize=normalize, titles=TitleFilter(**sets) if sets else None,
    )  # fmt: skip
    assert_same_lists(
        result,
        expected_lists(
            model, ids, mask, titles, scores, alpha=alpha, beam_width=beam_width, normalize=normalize, **sets
        ),
    )


@pytest.mark.parametrize("normalize", ["trie", "full"])
def test_with_all_weight_on_the_model_it_is_beam_search(normalize):
    titles = random_catalogue(3, 120)
    ids, mask = random_prompts(4, [20, 7, 11])
    trie = TokenTrie.from_sequences(titles)
    plain = constrained_beam_search(MODELS[0], ids, mask, trie, normalize=normalize)
    scores = random_scores(1, 3, 120)
    ours = d3_beam_search(MODELS[0], ids, mask, trie, scores, alpha=1.0, normalize=normalize)
    assert ours.sequences == plain.sequences
    torch.testing.assert_close(ours.scores, plain.scores)
    assert torch.equal(ours.certified, plain.certified)


def test_with_no_weight_on_the_model_titles_have_their_text_free_probability():
    titles = random_catalogue(5, 60)
    ids, mask = random_prompts(4, [20, 7])
    scores = random_scores(1, 2, 60) * 3
    result = d3_beam_search(
        MODELS[0], ids, mask, TokenTrie.from_sequences(titles), scores, alpha=0.0, beam_width=60
    )
    expected = scores.log_softmax(1)
    assert sorted(result.title_ids[0].tolist()) == list(range(60))
    torch.testing.assert_close(result.scores, expected.gather(1, result.title_ids), rtol=1e-5, atol=1e-5)
    assert result.certified.all()


def test_a_certified_list_is_the_best_of_the_whole_catalogue():
    titles = random_catalogue(6, 150)
    ids, mask = random_prompts(6, [8] * 20)
    trie = TokenTrie.from_sequences(titles)
    scores = random_scores(1, 20, 150) * 2
    options = {"alpha": 0.6, "normalize": "trie"}
    narrow = d3_beam_search(MODELS[1], ids, mask, trie, scores, beam_width=2, **options)
    whole = d3_beam_search(MODELS[1], ids, mask, trie, scores, beam_width=150, **options)
    same = (narrow.scores - whole.scores[:, :2]).abs().amax(1) < 1e-4
    assert 0 < int(narrow.certified.sum()) < 20
    assert same[narrow.certified].all()
    assert not same.all()


def test_titles_of_tiny_probability_keep_their_order():
    """Below one likely title, two whose masses are lost in a cumulative sum of float64."""
    titles = [[5, 6], [7, 8], [7, 9]]
    ids, mask = random_prompts(1, [6])
    scores = torch.tensor([[0.0, -41.0, -43.0]])
    result = d3_beam_search(
        MODELS[0], ids, mask, TokenTrie.from_sequences(titles), scores, alpha=0.0, beam_width=3
    )
    assert result.title_ids.tolist() == [[0, 1, 2]]
    inside = torch.tensor([math.exp(-41.0) + 1e-20, math.exp(-43.0) + 1e-20]).double()
    gap = float(result.scores[0, 1] - result.scores[0, 2])
    assert gap == pytest.approx(float(inside.log()[0] - inside.log()[1]), abs=1e-5)


def test_batches_of_any_size_and_one_row_for_all_users():
    titles = random_catalogue(9, 80)
    ids, mask = random_prompts(7, [30, 4, 21, 12, 9])
    trie, scores = TokenTrie.from_sequences(titles), random_scores(1, 5, 80)
    whole = d3_beam_search(MODELS[0], ids, mask, trie, scores, alpha=0.5)
    parts = d3_beam_search(MODELS[0], ids, mask, trie, scores, alpha=0.5, batch_size=2)
    assert parts.sequences == whole.sequences
    torch.testing.assert_close(parts.scores, whole.scores)
    shared = d3_beam_search(MODELS[0], ids, mask, trie, scores[:1].expand(5, -1), alpha=0.5)
    assert shared.sequences[0] == whole.sequences[0]


def test_what_is_ruled_out_comes_last_and_not_never():
    titles = random_catalogue(2, 12)
    ids, mask = random_prompts(7, [10])
    scores = torch.zeros(1, 12)
    scores[0, 3:] = -torch.inf
    result = d3_beam_search(
        MODELS[0], ids, mask, TokenTrie.from_sequences(titles), scores, alpha=0.5, beam_width=12
    )
    assert sorted(result.title_ids[0, :3].tolist()) == [0, 1, 2]
    assert sorted(result.title_ids[0].tolist()) == list(range(12))


def test_bad_input_is_named():
    trie = TokenTrie.from_sequences([[5, 6], [7]])
    ids, mask = random_prompts(13, [5, 9])

    def search(scores, alpha=0.5):
        return d3_beam_search(MODELS[0], ids, mask, trie, scores, alpha=alpha)

    with pytest.raises(ConfigError, match=r"alpha is 1\.5"):
        search(torch.zeros(2, 2), alpha=1.5)
    with pytest.raises(ConfigError, match="alpha is nan"):
        search(torch.zeros(2, 2), alpha=math.nan)
    with pytest.raises(DataError, match=r"item_scores is \[2, 3\].*\[2, 2\]"):
        search(torch.zeros(2, 3))
    with pytest.raises(DataError, match="NaN"):
        search(torch.tensor([[0.0, math.nan], [0.0, 0.0]]))
    with pytest.raises(DataError, match="row 1 of item_scores rules out every title"):
        search(torch.tensor([[0.0, 0.0], [-math.inf, -math.inf]]))
