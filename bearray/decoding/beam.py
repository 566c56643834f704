"""Constrained beam search over a token trie, with the answers of `transformers.generate` and a fraction of
its work.

Canonical (what is returned): `generate` with `prefix_allowed_tokens_fn`, `num_beams = num_return_sequences =
B`, `do_sample=False`, `early_stopping=False` and enough new tokens. At each depth the best 2B continuations
of a user's B prefixes are taken; those that end a title are stored if they are among the best B (score /
length^penalty, the end counted), the best B of the others go on; the user is done when B titles are stored
and the best prefix, at its present length, cannot beat the worst of them.

Faster, by construction and not by approximation:
- a user's B prefixes are B query positions of one row behind a prompt that is computed once (`prefixes.py`);
- normalize="trie": a token with one valid successor has log-probability 0; it costs a forward pass only when
  its keys are needed below, and then shares that pass;
- normalize="full": a stretch of forced tokens is scored in one pass, then replayed depth by depth;
- a user advances on what is known until a prefix must be scored, over depths without a choice at once; one
  pass then serves all users that wait, where the model can (`bearray.packed_queries`) with padding in the
  scores of attention alone; finished users leave the batch.

The search itself is in `beam_search.py`, what it knows of each user in `beams.py`. Axis letters: U users, T
prompt tokens, B beams.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

from bearray.config import Normalize
from bearray.decoding.beam_search import BeamSearch, Observer
from bearray.decoding.drive import search_in_batches
from bearray.decoding.prefixes import PrefixTree
from bearray.decoding.result import BeamResult
from bearray.decoding.scoring import Guide, Scorer
from bearray.decoding.title_filter import LivingTitles, TitleFilter
from bearray.errors import ConfigError
from bearray.trie import TokenTrie


def constrained_beam_search(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    trie: TokenTrie,
    *,
    beam_width: int = 10,
    normalize: Normalize = "trie",
    length_penalty: float = 0.0,
    titles: TitleFilter | None = None,
    batch_size: int | None = None,
    eos_token_id: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BeamResult:
    """The B most probable titles that beam search of width B finds, for each user.

    Args:
        model: a `transformers` causal LM, plain or with a PEFT adapter; put in evaluation mode for the call.
        input_ids: [U, T] prompts, left-padded, on any device.
        attention_mask: [U, T] 1 for a prompt's tokens, 0 for the padding before them.
        trie: the catalogue's titles as tokens.
        beam_width: B, prefixes kept and titles returned.
        normalize: "trie" divides by the probability of all valid next tokens (`renormalize_logits=True`),
            "full" by that of the whole vocabulary (`renormalize_logits=False`).
        length_penalty: a title's score is its log-probability / (tokens, end included) ** length_penalty.
        titles: which titles each user may be given; None: all.
        batch_size: users decoded at a time, of similar prompt length; None: as many as memory holds.
        eos_token_id: the end of a title; None takes the model's own (the first, where its config lists
            several).
        progress: called with (users done, users in all) after each batch.

    Returns:
        BeamResult on the CPU; `certified` says where the list is proven to be the true top B.

    Raises:
        ConfigError: a beam width or batch size below 1, an unknown normalizer, a length penalty that is not
            finite.
        DataError: prompts that are empty or not left-padded.
        ModelError: a model that cannot be decoded, or NaN logits.
    """
    return guided_beam_search(
        model,
        input_ids,
        attention_mask,
        trie,
        beam_width=beam_width,
        normalize=normalize,
        length_penalty=length_penalty,
        titles=titles,
        batch_size=batch_size,
        eos_token_id=eos_token_id,
        progress=progress,
    )


def guided_beam_search(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    trie: TokenTrie,
    *,
    beam_width: int = 10,
    normalize: Normalize = "trie",
    length_penalty: float = 0.0,
    titles: TitleFilter | None = None,
    make_guide: Callable[[TokenTrie, Tensor, LivingTitles | None], Guide] | None = None,
    observer: Observer | None = None,
    batch_size: int | None = None,
    eos_token_id: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BeamResult:
    """`constrained_beam_search` with two more openings, for decoders built on it and for analyses.

    Args:
        make_guide: (trie, a batch's rows, its living titles) -> what changes its scores. Scores must not rise
            with a title's length, or `certified` would not hold.
        observer: is told of every depth.
    """
    if beam_width < 1:
        raise ConfigError(f"beam_width is {beam_width}; it must be at least 1")
    if not math.isfinite(length_penalty):
        raise ConfigError(f"length_penalty is {length_penalty}; it must be finite")

    def start(scorer: Scorer, ids: Tensor, lengths: Tensor, rows: Tensor) -> BeamSearch:
        tree = PrefixTree(scorer.network, ids, lengths, scorer.trie.max_depth)
        return BeamSearch(
            scorer, tree, rows, beam_width=beam_width, length_penalty=length_penalty, observer=observer
        )

    return search_in_batches(
        model,
        input_ids,
        attention_mask,
        trie,
        start,
        normalize=normalize,
        answer_tokens=beam_width * trie.max_depth,
        titles=titles,
        make_guide=make_guide,
        batch_size=batch_size,
        eos_token_id=eos_token_id,
        progress=progress,
    )
