"""Thresholds of objective (3.1) for a training batch: a real beam search beside the training pass.

Where nothing in the training pass is random (no dropout), its own keys and values of the prompts serve the
search, and no prompt is computed twice; else the prompts are computed once more, in evaluation mode. Axis
letters: L tokens of the micro-batch, R its windows, T tokens of the longest prompt, N answer tokens, D hidden
size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bearray.batching import TokenBatch
from bearray.config import Normalize
from bearray.decoding.beam import BeamSearch
from bearray.decoding.network import Network, evaluation_mode
from bearray.decoding.prefixes import PrefixTree
from bearray.decoding.scoring import Scorer
from bearray.decoding.thresholds import ThresholdTrace
from bearray.errors import NaNError
from bearray.trie import TokenTrie

Keys = Sequence[tuple[Tensor, Tensor]]
"""Keys and values of each layer, [R, heads, T, head size]."""


def is_deterministic(model: nn.Module) -> bool:
    """Whether the model, in the mode it is in, computes the same in training as in evaluation."""
    return not any(isinstance(m, nn.Dropout) and m.p > 0 and m.training for m in model.modules()) and not (
        any(getattr(m, "attention_dropout", 0) and m.training for m in model.modules())
    )


@torch.no_grad()
def batch_thresholds(
    network: Network,
    batch: TokenBatch,
    trie: TokenTrie,
    *,
    beam_width: int,
    normalize: Normalize,
    keys: Keys | None = None,
    hidden: Tensor | None = None,
) -> Tensor:
    """The B-th best candidate's log-probability after each answer token.

    Args:
        network: the model, taken apart.
        batch: windows with one answer each, all of its tokens among the predicted ones.
        trie: on the batch's device.
        beam_width: B.
        normalize: the probability space of loss and search.
        keys: of the training pass, if they may be used; None computes the prompts.
        hidden: [L, D] the training pass's hidden states, with `keys`.

    Returns:
        [N] float32, as `bearray.decoding.thresholds.ThresholdTrace.threshold`; -inf where there are fewer
        than B candidates. All are NaN if the search meets a NaN: so is the loss then, which all workers see,
        where an error would leave the others waiting for this one.
    """
    if not len(batch.position):
        return torch.zeros(0, device=batch.position.device)
    lengths = batch.prompt_length
    trace = ThresholdTrace(len(lengths), trie.max_depth, lengths.device)
    rows = torch.arange(len(lengths), device=lengths.device)
    with evaluation_mode(network.body):
        if keys is not None:
            assert hidden is not None
            last = hidden[batch.position[batch.step == 0]].detach()
            detached = [(k.detach(), v.detach()) for k, v in keys]
            tree = PrefixTree.computed(network, detached, lengths, last, trie.max_depth)
        else:
            tree = PrefixTree(network, batch.input_ids[batch.prompts()], lengths, trie.max_depth)
        scorer = Scorer(network, trie, normalize)
        try:
            BeamSearch(scorer, tree, rows, beam_width=beam_width, observer=trace).search()
        except NaNError:
            return torch.full_like(batch.step, torch.nan, dtype=torch.float32)
    return trace.threshold[batch.instance, batch.step]
