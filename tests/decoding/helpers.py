"""Tiny random models, random catalogues, and the reference: `transformers.generate` with a dict trie."""

from __future__ import annotations

import random

import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

EOS, PAD = 2, 0
FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM),
}


def tiny_model(
    seed: int, family: str = "llama", vocab: int = 120, max_positions: int = 256, **settings
) -> PreTrainedModel:
    """Two layers of 32 with weights scaled up, so that next-token distributions are peaked and ties are
    rare.
    """
    torch.manual_seed(seed)
    config_class, model_class = FAMILIES[family]
    config = config_class(
        vocab_size=vocab, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=max_positions, bos_token_id=1,
        eos_token_id=EOS, pad_token_id=PAD, **settings,
    )  # fmt: skip
    model = model_class(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.mul_(12.0 if "embed" in name or "head" in name else 4.0)
    return model


def random_catalogue(seed: int, size: int, vocab: int = 120, longest: int = 8) -> list[list[int]]:
    """Distinct titles that share prefixes, some a prefix of another."""
    rng = random.Random(seed)
    titles: dict[tuple[int, ...], None] = {}
    while len(titles) < size:
        known = list(titles)
        stem = list(rng.choice(known)) if known and rng.random() < 0.6 else []
        stem = stem[: rng.randint(0, len(stem))]
        tail = [
            rng.randrange(3, vocab) for _ in range(rng.randint(0 if stem else 1, max(1, longest - len(stem))))
        ]
        titles[tuple(stem + tail)] = None
    return [list(title) for title in titles]


def random_prompts(
    seed: int, lengths: list[int], vocab: int = 120, shared: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Left-padded prompts of the given lengths; the first `shared` tokens of all are the same."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.full((len(lengths), width), PAD)
    mask = torch.zeros(len(lengths), width, dtype=torch.long)
    start = torch.randint(3, vocab, (shared,), generator=generator)
    for row, length in enumerate(lengths):
        ids[row, width - length :] = torch.randint(3, vocab, (length,), generator=generator)
        ids[row, width - length :][:shared] = start[:length]
        mask[row, width - length :] = 1
    return ids, mask


def dict_trie(titles: list[list[int]]) -> dict:
    root: dict = {}
    for title in titles:
        node = root
        for token in [*title, EOS]:
            node = node.setdefault(token, {})
    return root


def generate(model, ids, mask, titles, *, beam_width, normalize, length_penalty):
    """What `transformers.generate` returns: [U] lists of (title tokens, score), best first, without dead
    beams.
    """
    root, width = dict_trie(titles), ids.shape[1]

    def allowed(_: int, sentence: torch.Tensor) -> list[int]:
        node = root
        for token in sentence[width:].tolist():
            node = node.get(token)
            if node is None:
                return [EOS]
        return list(node) or [EOS]

    out = model.generate(
        input_ids=ids, attention_mask=mask, prefix_allowed_tokens_fn=allowed, num_beams=beam_width,
        num_return_sequences=beam_width, do_sample=False, early_stopping=False, length_penalty=length_penalty,
        renormalize_logits=normalize == "trie", max_new_tokens=max(map(len, titles)) + 2,
        return_dict_in_generate=True, output_scores=True, eos_token_id=EOS, pad_token_id=PAD,
    )  # fmt: skip
    known = {tuple(title) for title in titles}
    scores = (
        out.sequences_scores
        if beam_width > 1
        else _greedy_scores(model, out.sequences, ids, mask, root, normalize)
    )
    if (
        beam_width == 1 and length_penalty
    ):  # `generate` with one beam is greedy search, which knows no length penalty
        scores = scores / (1 + (out.sequences[:, width:] > EOS).sum(1)) ** length_penalty
    lists = []
    for user in range(len(ids)):
        rows = range(user * beam_width, (user + 1) * beam_width)
        found = []
        for row in rows:
            tokens = out.sequences[row, width:].tolist()
            score = float(scores[row])
            if score > -1e6:
                assert EOS in tokens
                title = tokens[: tokens.index(EOS)]
                assert tuple(title) in known
                found.append((title, score))
        lists.append(found)
    return lists


def _greedy_scores(model, sequences, ids, mask, root, normalize):
    """The log-probability of each row's title, from one plain forward pass."""
    width, scores = ids.shape[1], []
    answered = torch.cat([mask, torch.ones(len(ids), sequences.shape[1] - width, dtype=mask.dtype)], dim=1)
    positions = (answered.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(input_ids=sequences, attention_mask=answered, position_ids=positions).logits.float()
    for row in range(len(ids)):
        node, score = root, 0.0
        for column in range(width, sequences.shape[1]):
            token, z = int(sequences[row, column]), logits[row, column - 1]
            score += float(z[token] - (z if normalize == "full" else z[list(node)]).logsumexp(0))
            if token == EOS:
                break
            node = node[token]
        scores.append(score)
    return torch.tensor(scores)


def assert_same_lists(result, expected, rtol: float = 1e-4, atol: float = 2e-5) -> None:
    """Same titles, same scores, same order but for ties."""
    assert len(result.sequences) == len(expected)
    for user, found in enumerate(expected):
        scores = result.scores[user].tolist()
        assert len(result.sequences[user]) == len(found), (user, result.sequences[user], found)
        assert all(score == -torch.inf for score in scores[len(found) :])
        ours = dict(zip(map(tuple, result.sequences[user]), scores, strict=False))
        assert set(ours) == {tuple(title) for title, _ in found}, (user, ours, found)
        for rank, (title, score) in enumerate(found):
            assert abs(ours[tuple(title)] - score) <= atol + rtol * abs(score), (user, title)
            assert abs(scores[rank] - score) <= atol + rtol * abs(score), (user, rank)
