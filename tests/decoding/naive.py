"""Slow references for the decoders: dictionaries and lists, one forward pass a prefix, float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from tests.decoding.helpers import EOS, dict_trie

Step = Callable[[tuple[int, ...], dict], dict[int, float]]
"""(tokens so far, the dictionary trie below them) -> score of each valid next token, EOS for the end."""


def prompt_of(ids: torch.Tensor, mask: torch.Tensor, user: int) -> list[int]:
    return ids[user][mask[user].bool()].tolist()


def model_step(model, prompt: list[int], normalize: str) -> Step:
    """Log-probabilities of the valid next tokens, by a plain forward pass."""
    known: dict[tuple[int, ...], torch.Tensor] = {}

    def step(prefix: tuple[int, ...], below: dict) -> dict[int, float]:
        if prefix not in known:
            with torch.no_grad():
                out = model(input_ids=torch.tensor([[*prompt, *prefix]]))
            known[prefix] = out.logits[0, -1].double()
        z = known[prefix]
        norm = (z if normalize == "full" else z[list(below)]).logsumexp(0)
        return {token: float(z[token] - norm) for token in below}

    return step


def allowed_titles(titles, user: int, allow=None, deny=None) -> list[list[int]]:
    """The titles of a catalogue built anew for one user."""
    return [
        title
        for number, title in enumerate(titles)
        if (allow is None or number in set(allow[user])) and (deny is None or number not in set(deny[user]))
    ]


def beam_search(step: Step, titles: list[list[int]], width: int) -> list[tuple[list[int], float]]:
    """`generate`'s beam search without a length penalty: (title, score), best first."""
    if not titles:
        return []
    live: list[tuple[float, tuple[int, ...], dict]] = [(0.0, (), dict_trie(titles))]
    final: list[tuple[float, tuple[int, ...]]] = []
    while live:
        candidates = [
            (score + gain, prefix, token, below[token])
            for score, prefix, below in live
            for token, gain in step(prefix, below).items()
        ]
        candidates.sort(key=lambda c: -c[0])
        live = []
        for rank, (score, prefix, token, below) in enumerate(candidates[: 2 * width]):
            if token == EOS:
                final += [(score, prefix)] if rank < width else []
            elif len(live) < width:
                live.append((score, (*prefix, token), below))
        final = sorted(final, key=lambda f: -f[0])[:width]
        if len(final) == width and live and live[0][0] <= final[-1][0]:
            break
    return [(list(prefix), score) for score, prefix in final if score > -math.inf]
