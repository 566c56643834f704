"""Beam search against `transformers.generate`: same titles, same scores, same order."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from bearray.decoding import constrained_beam_search
from bearray.errors import ConfigError, DataError, ModelError
from bearray.trie import TokenTrie
from tests.adapters import stir
from tests.decoding.helpers import (
    EOS,
    FAMILIES,
    assert_same_lists,
    generate,
    random_catalogue,
    random_prompts,
    tiny_model,
)

torch.set_num_threads(1)
MODELS = [tiny_model(seed) for seed in range(3)]
SETTINGS = [(n, p) for n in ("trie", "full") for p in (0.0, 1.0)]


def check(model, titles, ids, mask, *, beam_width, normalize, length_penalty, **options):
    result = constrained_beam_search(
        model, ids, mask, TokenTrie.from_sequences(titles), beam_width=beam_width, normalize=normalize,
        length_penalty=length_penalty, **options,
    )  # fmt: skip
    expected = generate(
        model, ids, mask, titles, beam_width=beam_width, normalize=normalize, length_penalty=length_penalty
    )
    assert_same_lists(result, expected)
    assert result.scores.shape == result.title_ids.shape == (len(ids), beam_width)
    for rows, numbers in zip(result.sequences, result.title_ids.tolist(), strict=True):
        assert [titles[i] for i in numbers if i >= 0] == rows
    return result


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1, 2, 3, 7, 20, 60, 200]),
    lengths=st.lists(st.integers(4, 60), min_size=1, max_size=4),
    shared=st.sampled_from([0, 0, 5, 12, 60]),
    beam_width=st.integers(1, 20),
    setting=st.sampled_from(SETTINGS),
)
def test_equals_generate(seed, size, lengths, shared, beam_width, setting):
    ids, mask = random_prompts(seed, lengths, shared=shared)
    check(
        MODELS[seed % 3], random_catalogue(seed, size), ids, mask,
        beam_width=beam_width, normalize=setting[0], length_penalty=setting[1],
    )  # fmt: skip


@pytest.mark.parametrize(("normalize", "length_penalty"), SETTINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_model_families(family, normalize, length_penalty):
    model = tiny_model(11, family)
    ids, mask = random_prompts(1, [30, 4, 17])
    check(
        model, random_catalogue(5, 120), ids, mask,
        beam_width=10, normalize=normalize, length_penalty=length_penalty,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("mistral", {"sliding_window": 6}),
        ("qwen2", {"sliding_window": 6, "use_sliding_window": True, "max_window_layers": 1}),
        ("qwen3", {"sliding_window": 6, "use_sliding_window": True, "max_window_layers": 1}),
        ("gemma2", {"sliding_window": 6}),
        ("gemma3", {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}),
        ("llama", {"attn_implementation": "eager"}),
        ("llama", {"tie_word_embeddings": True}),
    ],
)
def test_windows_and_attention_variants(family, options):
    model = tiny_model(12, family, **options)
    titles = random_catalogue(6, 80)
    for ids, mask in (random_prompts(2, [30, 5, 12]), random_prompts(2, [30, 19, 25], shared=18)):
        for normalize in ("trie", "full"):
            check(model, titles, ids, mask, beam_width=6, normalize=normalize, length_penalty=0.0)


@pytest.mark.parametrize(("normalize", "length_penalty"), SETTINGS)
def test_titles_that_are_prefixes_of_others(normalize, length_penalty):
    rng = random.Random(3)
    stem = [rng.randrange(3, 120) for _ in range(12)]
    titles = [stem[:n] for n in range(1, 13)] + [[*stem[:n], rng.randrange(3, 120)] for n in range(12)]
    titles = [list(t) for t in dict.fromkeys(map(tuple, titles))]
    ids, mask = random_prompts(4, [9, 20])
    for beam_width in (1, 3, 10):
        check(
            MODELS[0], titles, ids, mask,
            beam_width=beam_width, normalize=normalize, length_penalty=length_penalty,
        )  # fmt: skip


@pytest.mark.parametrize("normalize", ["trie", "full"])
def test_one_title(normalize):
    ids, mask = random_prompts(4, [9, 20])
    result = check(MODELS[0], [[7, 8, 9]], ids, mask, beam_width=5, normalize=normalize, length_penalty=0.0)
    assert result.sequences == [[[7, 8, 9]]] * 2
    assert result.certified.all()
    if normalize == "trie":
        assert result.scores[:, 0].tolist() == [0.0, 0.0]


def test_catalogue_smaller_than_the_beam_is_returned_whole():
    titles = random_catalogue(8, 6)
    ids, mask = random_prompts(5, [12])
    result = check(MODELS[1], titles, ids, mask, beam_width=20, normalize="trie", length_penalty=0.0)
    assert sorted(result.title_ids[0].tolist()) == [-1] * 14 + list(range(6))
    assert float(result.scores[0][:6].exp().sum()) == pytest.approx(1.0, abs=1e-5)
    assert result.certified.all()


def test_four_and_four_hundred_tokens_in_one_batch():
    model = tiny_model(13, max_positions=512)
    ids, mask = random_prompts(6, [4, 400, 50])
    for normalize in ("trie", "full"):
        check(
            model, random_catalogue(7, 60), ids, mask, beam_width=10, normalize=normalize, length_penalty=0.0
        )


def test_the_start_that_all_prompts_share_is_computed_once():
    ids, mask = random_prompts(6, [40, 31, 60], shared=30)
    seen = []
    body = MODELS[0].model
    hook = body.embed_tokens.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    try:
        constrained_beam_search(MODELS[0], ids, mask, TokenTrie.from_sequences([[5]]))
    finally:
        hook.remove()
    assert seen == [(1, 30), (3, 30)]
    same = ids[:1].expand(4, -1), mask[:1].expand(4, -1)
    check(
        MODELS[0], random_catalogue(7, 60), *same, beam_width=5, normalize="trie", length_penalty=0.0
    )  # identical prompts: all but the last token


def test_batches_of_any_size_give_the_same_lists_and_report_progress():
    titles = random_catalogue(9, 150)
    ids, mask = random_prompts(7, [30, 4, 60, 12, 9, 41, 22])
    trie = TokenTrie.from_sequences(titles)
    whole = constrained_beam_search(MODELS[2], ids, mask, trie)
    seen = []
    parts = constrained_beam_search(
        MODELS[2], ids, mask, trie, batch_size=3, progress=lambda done, total: seen.append((done, total))
    )
    assert parts.sequences == whole.sequences
    torch.testing.assert_close(parts.scores, whole.scores)
    assert torch.equal(parts.certified, whole.certified)
    assert seen == [(3, 7), (6, 7), (7, 7)]


def test_lora_adapter_is_used_and_modes_are_restored():
    model = get_peft_model(
        tiny_model(14), LoraConfig(r=4, lora_alpha=8, lora_dropout=0.5, target_modules=["q_proj", "v_proj"])
    )
    titles = random_catalogue(10, 80)
    ids, mask = random_prompts(8, [25, 10])
    trie = TokenTrie.from_sequences(titles)
    plain = constrained_beam_search(model, ids, mask, trie)
    stir(model, std=2.0).eval()
    for normalize in ("trie", "full"):
        check(model, titles, ids, mask, beam_width=10, normalize=normalize, length_penalty=0.0)
    evaluated = constrained_beam_search(model, ids, mask, trie)
    model.train()
    model.base_model.model.model.layers[0].mlp.eval()  # a part that someone froze stays frozen
    before = [module.training for module in model.modules()]
    adapted = constrained_beam_search(model, ids, mask, trie)
    assert [module.training for module in model.modules()] == before
    assert torch.equal(adapted.scores, evaluated.scores)  # no dropout
    assert adapted.sequences != plain.sequences
    # What was computed under inference mode must not break the next training step.
    model(input_ids=ids, attention_mask=mask, labels=ids).loss.backward()


def test_forced_tokens_cost_no_pass_with_the_trie_normalizer():
    rng = random.Random(0)
    titles = [[first] + [rng.randrange(3, 120) for _ in range(9)] for first in range(3, 43)]
    ids, mask = random_prompts(9, [20, 11])
    trie = TokenTrie.from_sequences(titles)
    options = {"beam_width": 10, "length_penalty": 0.0}
    assert check(MODELS[0], titles, ids, mask, normalize="trie", **options).forward_passes == 1
    assert check(MODELS[0], titles, ids, mask, normalize="full", **options).forward_passes == 2
    assert len(trie) == 1 + 40 * 10


def test_bfloat16_lists_are_close_to_generate():
    model = tiny_model(15).to(torch.bfloat16)
    titles = random_catalogue(11, 150)
    ids, mask = random_prompts(10, [20, 33, 8, 15])
    trie = TokenTrie.from_sequences(titles)
    for normalize in ("trie", "full"):
        ours = constrained_beam_search(model, ids, mask, trie, normalize=normalize)
        theirs = generate(model, ids, mask, titles, beam_width=10, normalize=normalize, length_penalty=0.0)
        shared = sum(
            len(set(map(tuple, a)) & {tuple(t) for t, _ in b})
            for a, b in zip(ours.sequences, theirs, strict=True)
        )
        assert shared >= 0.8 * 40  # rounding moves the last places of a list
        assert ours.scores.dtype == torch.float32


def test_several_end_tokens_in_the_config_means_the_first():
    model = tiny_model(16)
    titles = random_catalogue(12, 40)
    ids, mask = random_prompts(11, [20])
    trie = TokenTrie.from_sequences(titles)
    single = constrained_beam_search(model, ids, mask, trie, normalize="full")
    model.config.eos_token_id = [EOS, 1]
    several = constrained_beam_search(model, ids, mask, trie, normalize="full")
    assert several.sequences == single.sequences
    assert torch.equal(several.scores, single.scores)


def test_nan_logits_are_an_error():
    model = tiny_model(17)
    ids, mask = random_prompts(12, [20])
    trie = TokenTrie.from_sequences(random_catalogue(13, 40))
    model.lm_head.weight.data.fill_(float("nan"))
    for normalize in ("trie", "full"):
        with pytest.raises(ModelError, match="NaN"):
            constrained_beam_search(model, ids, mask, trie, normalize=normalize)
        assert not torch.is_inference_mode_enabled()


def test_bad_input_is_named():
    model, trie = MODELS[0], TokenTrie.from_sequences([[5, 6], [7]])
    ids, mask = random_prompts(13, [5, 9])

    def search(*, ids=ids, mask=mask, trie=trie, model=model, **options):
        return constrained_beam_search(model, ids, mask, trie, **options)

    with pytest.raises(ConfigError, match="beam_width is 0"):
        search(beam_width=0)
    with pytest.raises(ConfigError, match="normalize is 'valid'"):
        search(normalize="valid")
    with pytest.raises(ConfigError, match="length_penalty is nan"):
        search(length_penalty=float("nan"))
    with pytest.raises(ConfigError, match="batch_size is 0"):
        search(batch_size=0)
    with pytest.raises(DataError, match="row 0 of attention_mask is not zeros followed by ones"):
        search(mask=mask.flip(1))
    with pytest.raises(DataError, match="row 1 of attention_mask is all padding"):
        search(mask=mask * torch.tensor([[1], [0]]))
    with pytest.raises(DataError, match=r"input_ids is \[2, 9\] and attention_mask \[2, 8\]"):
        search(mask=mask[:, 1:])
    with pytest.raises(DataError, match="no prompts"):
        search(ids=ids[:0], mask=mask[:0])
    with pytest.raises(ModelError, match="holds token 5000"):
        search(trie=TokenTrie.from_sequences([[5000]]))
    with pytest.raises(ModelError, match="end-of-sequence token 2 inside a title"):
        search(trie=TokenTrie.from_sequences([[5, EOS]]))
    with pytest.raises(ModelError, match="not a transformers causal language model"):
        search(model=torch.nn.Linear(2, 2))
    with pytest.raises(ModelError, match="no eos_token_id"):
        other = tiny_model(0)
        other.config.eos_token_id = other.generation_config.eos_token_id = None
        search(model=other)
    with pytest.raises(ModelError, match="takes no custom masks"):
        other = tiny_model(0)
        other.config._attn_implementation = "flash_attention_2"
        search(model=other)
