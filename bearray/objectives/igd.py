"""IGD: SFT with less weight on tokens that tell nothing about the item (Lin et al., arXiv 2506.13229).

With pr the items' empirical prior in training, renormalised among the titles that start with a prefix,

    H(prefix) = -sum over those titles of pr log pr,    IG(y_t) = H(y_<t) - H(y_<=t)
    L = sum_t( w_t * -log p(y_t) ) / sum_t( w_t ),      w_t = 1 where IG(y_t) > 0, else b

Most tokens of a title have IG 0: the prefix leaves one title. The paper's code was not at hand; this is its
tuning part as described, with our choice of b = 0.1, without its decoding part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bearray.config import ObjectiveConfig
from bearray.objectives.base import LossOutput, Objective
from bearray.objectives.flow import at_ends, check_counts, subtree_sums
from bearray.objectives.ops import check_beam_width, check_weight, pick
from bearray.objectives.tokens import AnswerTokens

if TYPE_CHECKING:
    from bearray.trie import TokenTrie


def node_entropy(trie: TokenTrie, title_counts: Tensor) -> Tensor:
    """H of each node: the entropy, in nats, of the titles that start with its prefix.

    Args:
        trie: the catalogue's titles.
        title_counts: [titles] how often each title (by index in the trie) was chosen in training.

    Returns:
        [nodes] float64; 0 where one title is left, or none that was ever chosen.

    Raises:
        ValueError: not one count of at least 0 for each title.
    """
    check_counts(trie, title_counts)
    count = at_ends(trie, title_counts)
    # With m the sum of a subtree's counts c, H = log m - sum(c log c) / m: two sums that are carried upwards.
    sums = subtree_sums(trie, torch.stack([count, torch.xlogy(count, count)], dim=1))
    mass, c_log_c = sums.unbind(1)
    entropy = mass.clamp_min(1e-300).log() - c_log_c / mass.clamp_min(1e-300)
    return entropy.clamp_min(0.0).where(mass > 0, 0.0)


def information_gain(entropy: Tensor, nodes: Tensor, instance: Tensor) -> Tensor:
    """IG of each answer token.

    Args:
        entropy: [nodes] from `node_entropy`.
        nodes: [N] node before each token; each answer's tokens in order and side by side, its
            end-of-sequence last.
        instance: [N] which answer the token belongs to.

    Returns:
        [N] H before the token minus H after it, which is 0 after the end of the title. It can be negative: a
        rare branch may leave more choice than there was on average.
    """
    before = entropy[nodes.long()]
    after = torch.zeros_like(before)
    goes_on = instance[1:] == instance[:-1]
    after[:-1] = before[1:] * goes_on
    # Entropies of equal subtrees differ in the last bits; such a difference is no information.
    gain = before - after
    return gain.where(gain.abs() > 1e-9, 0.0)


class IGD(Objective):
    """Needs `extras["information_gain"]`: [N], from `information_gain`.

    Args:
        uninformative_weight: b, at least 0; None: 0.1.
        beam_width: only for the pruning metrics.
    """

    name = "igd"
    source = "IGD, Lin et al. 2025, arXiv 2506.13229"
    needs = frozenset({"information_gain"})
    weight_from = "extras"

    def __init__(self, *, uninformative_weight: float | None = None, beam_width: int = 10) -> None:
        b = 0.1 if uninformative_weight is None else uninformative_weight
        self.uninformative_weight = check_weight("uninformative_weight", b)
        self.beam_width = check_beam_width(beam_width)

    @classmethod
    def from_config(cls, config: ObjectiveConfig) -> IGD:
        return cls(uninformative_weight=config.uninformative_weight, beam_width=config.beam_width)

    def __call__(self, tokens: AnswerTokens) -> LossOutput:
        log_probs, column = self.log_probs(tokens)
        nll = -pick(log_probs, column)
        gain = self.extra(tokens, "information_gain")
        weights = self.token_weights({"information_gain": gain}, tokens.instance).to(nll.dtype)
        informative = gain > 0
        metrics = self.common_metrics(tokens, nll)
        metrics["informative"] = (informative.sum().to(nll.dtype), weights.new_tensor(float(len(weights))))
        return LossOutput((weights * nll).sum(), weights.sum(), metrics)

    def token_weights(self, extras: Mapping[str, Tensor], instance: Tensor) -> Tensor:
        gain = extras["information_gain"]
        return torch.ones_like(gain).where(gain > 0, self.uninformative_weight)
