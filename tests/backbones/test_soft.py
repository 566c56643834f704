"""Soft tokens: an input embedding that reads them equals `inputs_embeds` made by hand, also in decoding."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bearray.backbones.llara import LLaRA
from bearray.backbones.lora import add_lora
from bearray.backbones.reference import add_reference, as_reference, reference_parameters, refresh_reference
from bearray.backbones.soft import (
    BLANK,
    FIRST,
    SoftEmbedding,
    UserTable,
    blanked,
    soft_embedding,
    soft_token,
)
from bearray.batching import Answer, Example, collate, left_pad
from bearray.config import ModelConfig
from bearray.decoding import constrained_beam_search, exact_top_k
from bearray.errors import ModelError
from bearray.forward import check_projection, hidden_states, project, use_tree_attention
from bearray.trie import TokenTrie
from bearray.vectors import FrozenVectors

V, D, WIDTH, TITLES = 40, 16, 6, 9
CPU = torch.device("cpu")


def language_model(**changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": D, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=V, eos_token_id=2, pad_token_id=2, **{**sizes, **changes})
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():  # far from uniform, so that lists have an order
        model.lm_head.weight.mul_(20)
    return model


def with_soft_tokens(model: LlamaForCausalLM) -> SoftEmbedding:
    torch.manual_seed(1)
    vectors = FrozenVectors(torch.randn(TITLES, WIDTH), UserTable())
    projectors = LLaRA.projectors(None, {"item": WIDTH}, D)  # type: ignore[arg-type]  # it asks nothing of itself
    soft = SoftEmbedding(model.get_input_embeddings(), projectors, vectors)
    model.set_input_embeddings(soft)
    return soft


def by_hand(soft: SoftEmbedding, ids: torch.Tensor) -> torch.Tensor:
    """The embeddings of tokens, one by one."""
    found = []
    for token in ids.flatten().tolist():
        if token < FIRST:
            found.append(soft.base.weight[token])
        elif token == BLANK:
            found.append(soft.base.weight.mean(0))
        else:
            first, _, second = soft.projectors["item"]["default"]
            inner = torch.nn.functional.gelu(first(soft.vectors.items[token - soft_token("item", 0)]))
            found.append(second(inner))
    return torch.stack(found).unflatten(0, ids.shape)


ITEM = [soft_token("item", k) for k in range(TITLES)]
IDS = torch.tensor([[3, ITEM[4], 5, 6, ITEM[8]], [ITEM[0], 7, BLANK, ITEM[4], 9]])


@pytest.mark.parametrize("tied", [False, True])
def test_logits_and_gradients_equal_a_forward_pass_by_inputs_embeds(tied: bool) -> None:
    model = language_model(tie_word_embeddings=tied).requires_grad_(False)
    plain = copy.deepcopy(model)
    soft = with_soft_tokens(model)
    ours = model(input_ids=IDS).logits
    theirs = plain(inputs_embeds=by_hand(soft, IDS)).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    slopes = []
    for logits in (ours, theirs):
        soft.zero_grad()
        logits.log_softmax(-1)[..., 5].sum().backward()
        slopes.append({n: p.grad.clone() for n, p in soft.trained().items()})
        assert soft.base.weight.grad is None
    assert len(slopes[0]) == 4 and all(bool(slope.any()) for slope in slopes[0].values())
    for name, slope in slopes[0].items():
        torch.testing.assert_close(slope, slopes[1][name], rtol=1e-4, atol=1e-6)


def test_words_alone_are_read_as_before_and_leave_projectors_without_a_slope() -> None:
    model = language_model().requires_grad_(False)
    ids = torch.tensor([[3, 4, 5]])
    before = model(input_ids=ids).logits
    soft = with_soft_tokens(model)
    after = model(input_ids=ids).logits
    torch.testing.assert_close(after.detach(), before, rtol=0, atol=0)
    after.sum().backward()  # they take part, or workers would wait for each other's gradients
    assert all(p.grad is not None and not p.grad.any() for p in soft.trained().values())
    with torch.no_grad():
        assert not model(input_ids=ids).logits.requires_grad


def test_kinds_without_a_projector_are_blank() -> None:
    model = language_model()
    blank = SoftEmbedding(model.get_input_embeddings())
    torch.testing.assert_close(blank(IDS), blank(blanked(IDS)))
    torch.testing.assert_close(blank(IDS)[0, 1], model.get_input_embeddings().weight.mean(0))


def test_a_bfloat16_model_projects_in_float32() -> None:
    model = language_model().to(torch.bfloat16)
    soft = with_soft_tokens(model)
    assert soft(IDS).dtype == torch.bfloat16
    assert {p.dtype for p in soft.trained().values()} == {torch.float32}


def test_soft_tokens_lie_beyond_any_vocabulary_and_within_32_bits() -> None:
    ends = [soft_token(kind, n) for kind in ("item", "user") for n in (0, (1 << 28) - 1)]
    assert FIRST == min(ends) > 10**9 and max(*ends, BLANK) < 2**31 and len({*ends, BLANK}) == 5
    with pytest.raises(ValueError, match="item -1"):
        soft_token("item", -1)
    with pytest.raises(ValueError, match="no soft token"):
        soft_token("user", 1 << 28)


def test_users_are_numbered_by_history_and_passing_ones_are_forgotten() -> None:
    table = UserTable()
    assert [table.number(h) for h in ([1, 2], [2, 1], (1, 2))] == [0, 1, 0] and table[1] == (2, 1)
    with pytest.raises(RuntimeError), table.passing():
        assert table.number([5]) == 2 and table.number([1, 2]) == 0 and len(table) == 3
        raise RuntimeError
    assert len(table) == 2 and table.number([6]) == 2 and table[2] == (6,)


CATALOGUE = [[10, 11], [10, 12], [13], [14, 15, 16], [14, 15, 17], [18, 19], [20]]
PROMPTS = [[3, ITEM[4], 5, ITEM[1]], [ITEM[0], 7], [3, 4, 5, ITEM[4], 6, BLANK]]


@pytest.mark.parametrize("normalize", ["trie", "full"])
def test_decoding_equals_generate_with_inputs_embeds(normalize: Any) -> None:
    """`transformers` is given vectors and a prefix constraint; it never sees a soft token."""
    model = language_model()
    plain = copy.deepcopy(model)
    soft = with_soft_tokens(model)
    ids, mask = left_pad(PROMPTS, 2)
    trie = TokenTrie.from_sequences(CATALOGUE)
    children: dict[tuple[int, ...], list[int]] = {}
    for title in CATALOGUE:
        for place, token in enumerate([*title, 2]):
            nexts = children.setdefault(tuple(title[:place]), [])
            nexts += [token] if token not in nexts else []

    ours = constrained_beam_search(model, ids, mask, trie, beam_width=4, normalize=normalize)
    exact = exact_top_k(model, ids, mask, trie, k=len(CATALOGUE), normalize=normalize)
    for user in range(len(PROMPTS)):
        own = ids[user : user + 1, ids.shape[1] - len(PROMPTS[user]) :]
        with torch.no_grad():
            theirs = plain.generate(
                inputs_embeds=by_hand(soft, own),
                attention_mask=torch.ones_like(own),
                prefix_allowed_tokens_fn=lambda _, written: children.get(tuple(written.tolist()), [2]),
                num_beams=4,
                num_return_sequences=4,
                do_sample=False,
                early_stopping=False,
                length_penalty=0.0,
                renormalize_logits=normalize == "trie",
                max_new_tokens=8,
                return_dict_in_generate=True,
                output_scores=True,
            )
        titles = [[t for t in row if t != 2] for row in theirs.sequences.tolist()]
        assert ours.sequences[user] == titles
        torch.testing.assert_close(ours.scores[user], theirs.sequences_scores, rtol=1e-4, atol=1e-4)
        assert exact.sequences[user][0] == titles[0]
        # And the true list, by the probability of every title.
        with torch.no_grad():
            true = {tuple(t): _score(plain, soft, own[0].tolist(), t, children, normalize) for t in CATALOGUE}
        best = sorted(true, key=lambda t: -true[t])
        assert [tuple(t) for t in exact.sequences[user]] == best
        wanted = torch.tensor([true[t] for t in best])
        torch.testing.assert_close(exact.scores[user], wanted, rtol=1e-4, atol=1e-4)


def _score(
    plain: Any, soft: SoftEmbedding, prompt: list[int], title: list[int], children, normalize
) -> float:
    logits = plain(inputs_embeds=by_hand(soft, torch.tensor([[*prompt, *title]]))).logits[0]
    total = 0.0
    for place, token in enumerate([*title, 2]):
        row = logits[len(prompt) - 1 + place]
        allowed = children[tuple(title[:place])]
        norm = row[allowed].logsumexp(0) if normalize == "trie" else row.logsumexp(0)
        total += float(row[token] - norm)
    return total


@pytest.mark.parametrize("tree", [True, False])
def test_packed_micro_batches_have_the_same_states(tree: bool) -> None:
    model = language_model()
    plain = copy.deepcopy(model)
    check_projection(model, CPU)
    soft = with_soft_tokens(model)
    check_projection(model, CPU)
    if tree:
        assert use_tree_attention(model, CPU)
    start = [3, ITEM[2]]  # a soft token in the start that all share, too
    windows = [Example([*start, *p], [10, 11, 2], [0] * 3, 0) for p in PROMPTS]
    batch = collate(windows, 2, [[Answer([13, 2], [0, 0], 2)] for _ in windows])
    assert batch.layout.shared == 2
    with torch.no_grad():
        logits = project(model, hidden_states(model, batch)[batch.position])
        naive = []
        for window in windows:
            for answer in ([10, 11], [13]):
                ids = torch.tensor([[*window.prompt, *answer]])
                naive.append(plain(inputs_embeds=by_hand(soft, ids)).logits[0, len(window.prompt) - 1 :])
    torch.testing.assert_close(logits, torch.cat(naive), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("kind", ["start", "base"])
def test_a_reference_has_the_projectors_as_they_were(kind: Any, lora: bool) -> None:
    model: Any = language_model()
    if lora:
        model = add_lora(model, ModelConfig(lora_r=2, lora_dropout=0.0))
    else:
        model.requires_grad_(False)
    lm = model.get_base_model() if lora else model
    soft = with_soft_tokens(lm)
    before = model(input_ids=IDS).logits.detach()
    with pytest.raises(ModelError, match="add_reference"), as_reference(model, kind):
        pass
    add_reference(model, kind)
    add_reference(model, kind)  # a second loop on the same model
    assert all(not p.requires_grad for p in reference_parameters(model).values())
    copies = 4 + (8 if lora and kind == "start" else 0)
    assert len(reference_parameters(model)) == copies
    with torch.no_grad():
        for weight in (p for p in model.parameters() if p.requires_grad):
            weight.add_(0.1)
    moved = model(input_ids=IDS).logits.detach()
    assert not torch.allclose(moved, before)
    with as_reference(model, kind):
        torch.testing.assert_close(model(input_ids=IDS).logits, before)
    torch.testing.assert_close(model(input_ids=IDS).logits.detach(), moved, rtol=0, atol=0)
    if kind == "start":
        refresh_reference(model)
        with as_reference(model, kind):
            torch.testing.assert_close(model(input_ids=IDS).logits, moved)
    assert soft_embedding(model) is soft
