"""Grounding against `generate`, single forward passes and lists, one user after the other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from bearray.decoding import TitleFilter, embed_titles, grounded_beam_search
from bearray.decoding.embeddings import embed_texts
from bearray.errors import ConfigError, DataError, ModelError
from bearray.trie import TokenTrie
from tests.adapters import stir
from tests.decoding.helpers import EOS, random_catalogue, random_prompts, tiny_model
from tests.decoding.naive import prompt_of

BOS = 1


def adapted(seed: int):
    """(a model with an adapter that changes what it writes, the same base model without one)."""
    model = get_peft_model(
        tiny_model(seed), LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    )
    return stir(model, std=1.0, seed=seed).eval(), tiny_model(seed)


MODELS = [adapted(seed) for seed in (70, 71)]


def vector(base, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        out = base(input_ids=torch.tensor([tokens]), output_hidden_states=True)
    return out.hidden_states[-1][0, -1].double()


def written(model, prompt: list[int], beams: int, longest: int, length_penalty: float) -> list[int]:
    search = {"length_penalty": length_penalty, "early_stopping": False} if beams > 1 else {}
    out = model.generate(
        input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        num_beams=beams, do_sample=False, max_new_tokens=longest, eos_token_id=EOS, pad_token_id=EOS,
        **search,
    )  # fmt: skip
    tokens = out[0, len(prompt) :].tolist()
    return (tokens[: tokens.index(EOS)] if EOS in tokens else tokens) or [EOS]


def scaled(values: list[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(v - low) / (high - low) if high > low else 0.0 for v in values]


def naive(pair, prompt, titles, allowed, *, beams, longest, length_penalty, prefix, side, gamma):
    """{title number: distance, or what ranks instead of it}."""
    model, base = pair
    text = vector(base, [*prefix, *written(model, prompt, beams, longest, length_penalty)])
    distance = [float((text - vector(base, [*prefix, *titles[i]])).norm()) for i in allowed]
    if side is not None and allowed:
        distance = [
            d * (1 + c) ** -gamma
            for d, c in zip(scaled(distance), scaled([side[i] for i in allowed]), strict=True)
        ]
    return dict(zip(allowed, distance, strict=True))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1, 3, 30]),
    beam_width=st.sampled_from([1, 5, 40]),
    beams=st.sampled_from([1, 3]),
    length_penalty=st.sampled_from([0.0, 1.0]),
    prefix=st.sampled_from([[], [BOS]]),
    side=st.sampled_from(["", "one", "each"]),
    filtered=st.booleans(),
    batch_size=st.sampled_from([None, 2]),
)
def test_equals_the_naive_version(
    seed, size, beam_width, beams, length_penalty, prefix, side, filtered, batch_size
):
    pair, titles = MODELS[seed % 2], random_catalogue(seed, size)
    ids, mask = random_prompts(seed, [9, 4, 14])
    trie = TokenTrie.from_sequences(titles)
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(3, size, generator=generator)
    allow = [torch.randperm(size, generator=generator)[: size // (user + 1)].tolist() for user in range(3)]
    allow[2] = []
    result = grounded_beam_search(
        pair[0], ids, mask, trie, embeddings=embed_titles(pair[0], trie, prefix=prefix, batch_size=7),
        beam_width=beam_width, generation_beams=beams, length_penalty=length_penalty,
        side_scores={"": None, "one": scores[0], "each": scores}[side], gamma=0.7 if side else 0.0,
        titles=TitleFilter(allow=allow) if filtered else None, batch_size=batch_size,
    )  # fmt: skip
    assert result.scores.shape == result.title_ids.shape == (3, beam_width)
    assert not result.certified.any()
    for user in range(3):
        asked = (
            pair,
            prompt_of(ids, mask, user),
            titles,
            sorted(allow[user]) if filtered else list(range(size)),
        )
        how = {
            "beams": beams,
            "longest": trie.max_depth + 1,
            "length_penalty": length_penalty,
            "prefix": prefix,
        }
        plain = naive(*asked, **how, side=None, gamma=0.0)
        if side and len(plain) > 1:  # scaled to [0, 1]: distances that hardly differ are rounding, blown up
            assume(max(plain.values()) - min(plain.values()) > 1e-2 * max(plain.values()))
        by_user = {"": None, "one": scores[0].tolist(), "each": scores[user].tolist()}
        expected = naive(*asked, **how, side=by_user[side], gamma=0.7)
        count = min(beam_width, len(expected))
        found = result.title_ids[user, :count].tolist()
        assert len(set(found)) == count
        assert result.title_ids[user, count:].tolist() == [-1] * (beam_width - count)
        assert result.sequences[user] == [titles[i] for i in found]
        best = sorted(expected.values())[:count]
        assert result.scores[user, :count].tolist() == pytest.approx([-d for d in best], abs=2e-4, rel=1e-4)
        assert [-expected[i] for i in found] == pytest.approx([-d for d in best], abs=2e-4, rel=1e-4)


def test_a_title_that_is_written_is_at_distance_zero():
    model, base = MODELS[0]
    ids, mask = random_prompts(5, [12])
    text = written(model, prompt_of(ids, mask, 0), 4, 6, 0.0)
    titles = [t for t in random_catalogue(5, 20) if t != text] + [text]
    result = grounded_beam_search(model, ids, mask, TokenTrie.from_sequences(titles), max_new_tokens=6)
    assert result.sequences[0][0] == text
    assert float(result.scores[0, 0]) == pytest.approx(0.0, abs=1e-4)
    assert result.forward_passes == len(text) + (len(text) < 6)
    assert written(base, prompt_of(ids, mask, 0), 4, 6, 0.0) != text  # the adapter is what wrote


def test_vectors_are_the_base_model_s_and_the_adapter_is_back_afterwards():
    model, base = MODELS[1]
    titles = random_catalogue(6, 40)
    model.train()
    frozen = next(p for n, p in model.named_parameters() if "lora_A" in n)
    frozen.requires_grad_(False)
    before = {n: p.requires_grad for n, p in model.named_parameters()}
    ids, _ = random_prompts(5, [12])
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    got = embed_texts(model, titles, prefix=[BOS], batch_size=9)
    expected = torch.stack([vector(base, [BOS, *title]) for title in titles])
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-4)
    assert {n: p.requires_grad for n, p in model.named_parameters()} == before
    assert model.training
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, logits)
    model.eval()
    frozen.requires_grad_(True)


def test_titles_with_equal_tokens_are_returned_once():
    titles = [[5, 6], [7], [5, 6]]
    ids, mask = random_prompts(5, [12])
    result = grounded_beam_search(MODELS[0][0], ids, mask, TokenTrie.from_sequences(titles), beam_width=3)
    assert sorted(result.title_ids[0].tolist()) == [-1, 0, 1]


def test_a_text_may_be_nothing_but_its_end():
    model = tiny_model(3)
    ids, mask = random_prompts(5, [12])
    with torch.no_grad():
        model.lm_head.weight[EOS] = 100 * model.model(input_ids=ids).last_hidden_state[0, -1]
    trie = TokenTrie.from_sequences(random_catalogue(5, 9))
    found = grounded_beam_search(model, ids, mask, trie, beam_width=9)
    text = vector(model, [EOS])
    expected = [float((text - vector(model, title)).norm()) for title in found.sequences[0]]
    assert expected == sorted(expected)
    assert found.scores[0].tolist() == pytest.approx([-d for d in expected], abs=2e-4)


def test_chunks_of_titles_give_the_same_distances(monkeypatch):
    from bearray.decoding import grounding

    titles, texts = torch.randn(23, 8), torch.randn(4, 8)
    whole = grounding._distances(texts, titles)
    torch.testing.assert_close(whole, (texts[:, None] - titles).norm(dim=2))
    monkeypatch.setattr(grounding, "_CHUNK_BYTES", 4 * 8 * 5)
    assert torch.equal(grounding._distances(texts, titles), whole)


def test_progress_is_reported():
    ids, mask = random_prompts(5, [12, 5, 7])
    seen = []
    grounded_beam_search(
        MODELS[0][0], ids, mask, TokenTrie.from_sequences([[5], [6]]), batch_size=2,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(2, 3), (3, 3)]


def test_bad_input_is_named():
    model, trie = MODELS[0][0], TokenTrie.from_sequences([[5, 6], [7]])
    ids, mask = random_prompts(13, [5, 9])

    def search(**options):
        return grounded_beam_search(options.pop("model", model), ids, mask, trie, **options)

    for options, message in (
        ({"beam_width": 0}, "beam_width is 0"),
        ({"generation_beams": 0}, "generation_beams is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"gamma": -1.0}, r"gamma is -1\.0"),
        ({"length_penalty": float("inf")}, "length_penalty is inf"),
        ({"batch_size": 0}, "batch_size is 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            search(**options)
    with pytest.raises(DataError, match=r"side_scores is \[3\]"):
        search(side_scores=torch.zeros(3), gamma=1.0)
    with pytest.raises(DataError, match="side_scores holds NaN"):
        search(side_scores=torch.tensor([0.0, float("nan")]), gamma=1.0)
    with pytest.raises(DataError, match="embeddings are of 1 titles, but the trie has 2"):
        search(embeddings=embed_titles(model, TokenTrie.from_sequences([[5]])))
    with pytest.raises(DataError, match="the title filter is for 1 users"):
        search(titles=TitleFilter(deny=[[]]))
    with pytest.raises(DataError, match="text 1 has no tokens"):
        embed_texts(model, [[5], []])
    broken = tiny_model(3)
    broken.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="NaN"):
        search(model=broken)
