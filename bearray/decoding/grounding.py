"""BIGRec grounding: the model writes a title of its own, and the catalogue's nearest titles are recommended.

Unconstrained beam search (`transformers.generate`) finds the most probable text; its distance to a title is
the Euclidean one between their vectors under the base model (`embeddings.py`). With side information, such as
popularity or a text-free model's scores,

    d~ * (1 + c~) ** -gamma,      d~ and c~ = distances and side information, min-max scaled for each user

ranks instead of the distance d. Bao et al., TORS 2025, arXiv 2308.08434.

Where this departs from the published code: both kinds of text keep their quotes, because generated answers
are compared with the catalogue's answers as they are; and the scaling runs over the titles that a user may
be given.

Axis letters: U users, D hidden size, B titles returned.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bearray.decoding.batches import in_batches, users_that_fit
from bearray.decoding.beams import widen
from bearray.decoding.embeddings import TitleEmbeddings, embed_texts, embed_titles
from bearray.decoding.network import Network, decoding_mode, open_network
from bearray.decoding.prefixes import right_padded
from bearray.decoding.result import BeamResult, join_results, make_result
from bearray.decoding.title_filter import TitleFilter
from bearray.errors import ConfigError, DataError, ModelError, NaNError
from bearray.trie import TokenTrie

_CHUNK_BYTES = 256 * 2**20
"""Title vectors are compared in float32, at most this many bytes at a time."""


def grounded_beam_search(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    trie: TokenTrie,
    *,
    embeddings: TitleEmbeddings | None = None,
    beam_width: int = 10,
    generation_beams: int = 4,
    max_new_tokens: int | None = None,
    length_penalty: float = 0.0,
    side_scores: Tensor | None = None,
    gamma: float = 0.0,
    titles: TitleFilter | None = None,
    batch_size: int | None = None,
    eos_token_id: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BeamResult:
    """The B titles nearest to what the model writes without constraint, for each user.

    Args:
        model: a `transformers` causal LM, plain or with a PEFT adapter, which writes and is off for the
            comparison; put in evaluation mode for the call.
        input_ids, attention_mask, titles, batch_size, eos_token_id, progress: as in
            `constrained_beam_search`.
        trie: the catalogue's titles as tokens.
        embeddings: of the trie's titles under the base model, from `embed_titles`; None makes them for this
            call, without a prefix.
        beam_width: B, titles returned.
        generation_beams: beams of the unconstrained search, whose best text is grounded (BIGRec: 4).
        max_new_tokens: longest text; None: one more than the longest title.
        length_penalty: of the unconstrained search; BIGRec's code has 1.
        side_scores: [U, titles], or [titles] for all users: side information, the higher the better.
        gamma: its weight; 0 ignores it.

    Returns:
        BeamResult on the CPU. Scores are minus the distances, weighted where there is side information;
        `certified` is never claimed.

    Raises:
        ConfigError: a beam width, batch size or number of tokens below 1, a gamma that is negative or not
            finite, a length penalty that is not finite.
        DataError: embeddings or side information for other titles, NaN or infinity in it; or as
            `constrained_beam_search`.
        ModelError: a model that cannot write.
        NaNError: NaN in its hidden states.
    """
    for name, value in (
        ("beam_width", beam_width),
        ("generation_beams", generation_beams),
        ("max_new_tokens", max_new_tokens),
    ):
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1")
    if not (math.isfinite(gamma) and gamma >= 0):
        raise ConfigError(f"gamma is {gamma}; it must be at least 0")
    if not math.isfinite(length_penalty):
        raise ConfigError(f"length_penalty is {length_penalty}; it must be finite")
    users, count = len(input_ids), trie.num_sequences
    if titles is not None and len(titles) != users:
        raise DataError(f"the title filter is for {len(titles)} users, but there are {users} prompts")
    side = _checked_side(side_scores, users, count)
    network = open_network(model, eos_token_id)
    trie = trie.to(network.device)
    ids, lengths = right_padded(input_ids.to(network.device), attention_mask.to(network.device))
    if embeddings is None:
        embeddings = embed_titles(model, trie)
    if len(embeddings.vectors) != count:
        raise DataError(f"embeddings are of {len(embeddings.vectors)} titles, but the trie has {count}")
    known, longest = embeddings, max_new_tokens or trie.max_depth + 1
    parts: list[BeamResult] = []
    order: list[Tensor] = []

    def fit() -> int:
        answers = (generation_beams - 1) * int(lengths.max()) + generation_beams * longest
        return users_that_fit(
            network.body.config, network.device, network.dtype.itemsize, int(lengths.max()), answers
        )

    def one(rows: Tensor) -> None:
        written, passes = _write(
            model, network, ids[rows], lengths[rows], generation_beams, longest, length_penalty
        )
        vectors = embed_texts(model, written, prefix=known.prefix)
        allowed = (known.nodes >= 0).expand(len(rows), -1)
        if titles is not None:
            place = trie.title_order.place.long()
            living = titles.on(trie, rows.tolist()).mask(len(rows))
            allowed = allowed & living[:, place.clamp(min=0)]
        score = -_distances(vectors, known.vectors)
        if side is not None and gamma > 0:
            score = -_weighted(-score, side[rows.to(side.device)].to(score.device), gamma, allowed)
        best, title = score.masked_fill(~allowed, -torch.inf).topk(min(beam_width, count), dim=1)
        best, title = widen(best, beam_width, -torch.inf), widen(title, beam_width, 0)
        none = torch.zeros(len(rows), dtype=torch.bool)
        parts.append(make_result(trie, known.nodes.to(title.device)[title], best, none, passes, none.long()))
        order.append(rows)
        if progress is not None:
            progress(sum(map(len, order)), users)

    with decoding_mode(model):
        in_batches(lengths, batch_size, fit, one)
    return join_results(parts, torch.cat(order))


def _write(
    model: nn.Module,
    network: Network,
    ids: Tensor,
    lengths: Tensor,
    beams: int,
    max_new_tokens: int,
    length_penalty: float,
) -> tuple[list[list[int]], int]:
    """The most probable text for each right-padded prompt [U, T], without its end, and the passes it took."""
    writer: Any = model
    while not hasattr(writer, "generate") and isinstance(getattr(writer, "module", None), nn.Module):
        writer = writer.module
    if not hasattr(writer, "generate"):
        raise ModelError(f"{type(model).__name__} has no generate; grounding needs a transformers model")
    width = int(lengths.max())
    column = torch.arange(width, device=ids.device)
    source = column - (width - lengths[:, None])  # `generate` wants its prompts left-padded
    prompts = torch.where(source >= 0, ids.gather(1, source.clamp(min=0)), network.eos_token_id)
    passes = 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    search = {"early_stopping": False, "length_penalty": length_penalty} if beams > 1 else {}
    hook = network.body.register_forward_hook(count)
    try:
        out = writer.generate(
            input_ids=prompts,
            attention_mask=(source >= 0).long(),
            num_beams=beams,
            num_return_sequences=1,
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=network.eos_token_id,
            pad_token_id=network.eos_token_id,
            **search,
        )
    finally:
        hook.remove()
    eos = network.eos_token_id
    written = [row[: row.index(eos)] if eos in row else row for row in out[:, width:].tolist()]
    return [row or [eos] for row in written], passes  # where nothing was written, the end stands for it


def _distances(texts: Tensor, titles: Tensor) -> Tensor:
    """[U, titles] Euclidean distances in float32, a chunk of titles at a time.

    Not through a matrix product, which cannot tell small distances from none.
    """
    texts = texts.float()
    step = max(1, _CHUNK_BYTES // (4 * texts.shape[1]))
    mode = "donot_use_mm_for_euclid_dist"
    chunks = [torch.cdist(texts, t.to(texts.device).float(), compute_mode=mode) for t in titles.split(step)]
    distance = torch.cat(chunks, dim=1)
    if bool(torch.isnan(distance).any()):
        raise NaNError("the model's hidden states hold NaN; its weights or its number type are broken")
    return distance


def _weighted(distance: Tensor, side: Tensor, gamma: float, allowed: Tensor) -> Tensor:
    """d~ * (1 + c~) ** -gamma [U, titles]."""
    return _scaled(distance, allowed) * (1 + _scaled(side, allowed)) ** -gamma


def _scaled(values: Tensor, allowed: Tensor) -> Tensor:
    """Rows from 0 to 1 over what is allowed; 0 where all values are equal."""
    low = values.masked_fill(~allowed, torch.inf).amin(1, keepdim=True)
    high = values.masked_fill(~allowed, -torch.inf).amax(1, keepdim=True)
    return torch.where(high > low, (values - low) / (high - low), 0.0)


def _checked_side(side: Tensor | None, users: int, titles: int) -> Tensor | None:
    if side is None:
        return None
    if tuple(side.shape) not in ((titles,), (users, titles)):
        raise DataError(
            f"side_scores is {list(side.shape)}; it must be [titles], {[titles]}, or [users, titles], "
            f"{[users, titles]}"
        )
    if not bool(torch.isfinite(side).all()):
        raise DataError("side_scores holds NaN or infinity; it must be finite")
    return side.float().expand(users, -1)
