"""What a prefix must score to stay in the beam: the thresholds of objective (3.1).

BEAR's paper (arXiv 2601.22925, objective 3.1) asks that at every step the target's prefix is at least as
probable as the B-th candidate of beam search, b^B. Here b^B's log-probability is read off a real search,
depth by depth. Axis letters: U users, B beams, L tokens of the longest title.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bearray.config import Normalize
from bearray.decoding.beam import guided_beam_search
from bearray.decoding.beams import Beams
from bearray.trie import TokenTrie


class ThresholdTrace:
    """Records the B-th best candidate of each depth; pass it as `observer` of `guided_beam_search`.

    Candidates after t tokens are the running prefixes of t tokens and the titles that have ended; those keep
    their final log-probability. As in `generate`, and unlike a list of B slots that both share, ended titles
    take no running prefix's place. When the search ends no running prefix can come among the B titles found,
    so the last threshold holds from there on.
    """

    every_depth = False

    threshold: Tensor
    """[U, L + 1] float32: after token t (from 1 on; the end of a title counts as one) in column t - 1; -inf
    where there are fewer than B candidates."""

    def __init__(self, users: int, max_depth: int, device: torch.device | str) -> None:
        self.threshold = torch.full((users, max_depth + 1), -torch.inf, device=device)

    def advanced(self, users: Tensor, beams: Beams, bar: Tensor, end_bar: Tensor) -> None:
        """As `Observer.advanced`."""
        width = beams.score.shape[1]
        candidates = torch.cat([beams.score, beams.final_score], dim=1)
        found = candidates.topk(width, dim=1).values[:, -1]
        later = torch.arange(self.threshold.shape[1], device=found.device) >= beams.depth[:, None] - 1
        self.threshold[users] = torch.where(later, found[:, None], self.threshold[users])


@torch.no_grad()
def beam_thresholds(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    trie: TokenTrie,
    *,
    beam_width: int = 10,
    normalize: Normalize = "trie",
    batch_size: int | None = None,
    eos_token_id: int | None = None,
) -> Tensor:
    """Log-probability of the B-th best candidate after each token of a beam search of width B.

    Args: as `constrained_beam_search`; no length penalty.

    Returns:
        [U, L + 1] float32 on the model's device, as `ThresholdTrace.threshold`.

    Raises:
        ConfigError, DataError, ModelError: as `constrained_beam_search`.
    """
    device = next(model.parameters()).device
    trace = ThresholdTrace(len(input_ids), trie.max_depth, device)
    guided_beam_search(
        model,
        input_ids,
        attention_mask,
        trie,
        beam_width=beam_width,
        normalize=normalize,
        observer=trace,
        batch_size=batch_size,
        eos_token_id=eos_token_id,
    )
    return trace.threshold
