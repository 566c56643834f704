"""Thresholds of objective (3.1) for a training batch: a real beam search beside the training pass.

Where nothing in the training pass is random (no dropout), its own keys and values of the prompts serve the
search, and no prompt is computed twice; else the prompts are computed once more, in evaluation mode. A search
goes no deeper than its window's target. Axis letters: L tokens of the micro-batch, R its windows, T tokens of
the longest prompt, S tokens of the longest target, the end among them, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bearray.batching import TokenBatch
from bearray.config import Normalize
from bearray.decoding.beam_search import BeamSearch
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

    def is_random(module: nn.Module) -> bool:
        probability = module.p if isinstance(module, nn.Dropout) else vars(module).get("attention_dropout", 0)
        return bool(probability) and module.training

    return not any(is_random(m) for m in model.modules())


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
    """The B-th best candidate's log-probability after each token of each window's target.

    Args:
        network: the model, taken apart.
        batch: windows with one answer each.
        trie: on the batch's device.
        beam_width: B.
        normalize: the probability space of loss and search.
        keys: of the training pass, if they may be used; None computes the prompts.
        hidden: [L, D] the training pass's hidden states, with `keys`.

    Returns:
        [R, S] float32, as `bearray.decoding.thresholds.ThresholdTrace.threshold`; -inf where there are fewer
        than B candidates, and behind the end of a target. All are NaN if the search meets a NaN: so is the
        loss then, which all workers see, where an error would leave the others waiting for this one.
    """
    lengths, targets = batch.prompt_length, batch.answers.length
    if not len(lengths):
        return torch.zeros(0, 0, device=lengths.device)
    trace = ThresholdTrace(len(lengths), trie.max_depth, lengths.device)
    rows = torch.arange(len(lengths), device=lengths.device)
    behind = torch.arange(int(targets.max()), device=lengths.device) >= targets[:, None]
    with evaluation_mode(network.body):
        if keys is not None:
            assert hidden is not None
            last = hidden[batch.prompts().gather(1, lengths[:, None] - 1)[:, 0]].detach()
            detached = [(k.detach(), v.detach()) for k, v in keys]
            tree = PrefixTree.computed(network, detached, lengths, last, trie.max_depth)
        else:
            tree = PrefixTree(network, batch.input_ids[batch.prompts()], lengths, trie.max_depth)
        scorer = Scorer(network, trie, normalize)
        try:
            search = BeamSearch(scorer, tree, rows, beam_width=beam_width, observer=trace, depths=targets)
            search.search()
        except NaNError:
            trace.threshold[:] = torch.nan
    return trace.threshold[:, : behind.shape[1]].masked_fill(behind, -torch.inf)
