"""Log-probabilities of a node's valid next tokens, from hidden states. Only those tokens' logits are kept.

    normalize="trie":  log q(v | prefix) = z_v - log sum over valid w of exp z_w      (released MSL and BEAR)
    normalize="full":  log p(v | prefix) = z_v - log sum over the vocabulary of exp z_w        (released SFT)

in float32 from logits z of the model's own type, as `transformers` does. Axis letters: N rows, K candidates,
V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bearray.config import Normalize
from bearray.decoding.network import Network
from bearray.decoding.title_filter import LivingTitles
from bearray.errors import ConfigError, ModelError, NaNError
from bearray.trie import TokenTrie

_CHUNK_BYTES = 256 * 2**20
"""Logits [N, V] and gathered rows of the projection are made at most this large at a time."""


class Guide(Protocol):
    """A second opinion on continuations, such as D3's text-free model."""

    def blend(self, log_probs: Tensor, users: Tensor, nodes: Tensor, child: Tensor) -> Tensor:
        """New scores [N, K] from the model's log-probabilities [N, K]; rows of padding are overwritten."""
        ...


@dataclass(frozen=True, eq=False)
class Scorer:
    """What a search asks a model: how likely is each valid continuation of a prefix, for this user?

    Made for one batch of users; `users` below are rows of that batch, as it was at the start.
    """

    network: Network
    trie: TokenTrie
    normalize: Normalize
    living: LivingTitles | None = None
    """Restricts the titles, per user."""
    guide: Guide | None = None
    """Changes the scores of valid continuations."""

    def __call__(
        self, hidden: Tensor, nodes: Tensor, users: Tensor, *, same_node: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Score the valid continuations of trie nodes.

        Args:
            hidden: [N, D] hidden state of each node's last token.
            nodes: [N] trie nodes.
            users: [N] whose prefix each is.
            same_node: all rows have the same node (the root), which allows one small matrix product.

        Returns:
            (log_probs [N, K] float32, child [N, K] long): child is the node that the token leads to, -1 for
            the end of a title; padding, and what the user may not be given, has log-probability -inf.

        Raises:
            NaNError: NaN logits.
        """
        network, trie = self.network, self.trie
        same_node = same_node and len(nodes) > 0
        child, valid = trie.children(nodes[:1] if same_node else nodes)
        tokens = trie.tokens_of(child, network.eos_token_id)
        if same_node:
            child, valid, tokens = (x.expand(len(nodes), -1) for x in (child, valid, tokens))
        if self.living is not None:
            valid = valid & self.living.alive(users, nodes, child)
        if self.normalize == "trie" and network.has_plain_head:
            if same_node:
                logits = network.logits(hidden, tokens[0]).masked_fill(~valid, -torch.inf)
            else:
                logits = _sparse_logits(network, hidden, tokens, valid)
            log_probs = torch.log_softmax(logits, dim=-1)
        else:
            log_probs = _dense_log_probs(network, hidden, tokens, valid, self.normalize)
        log_probs = log_probs.masked_fill(~valid, -torch.inf)
        if bool(torch.isnan(log_probs).any()):
            raise NaNError(
                "the model's logits are NaN or all -inf; its weights or its number type are broken"
            )
        if self.guide is not None:
            log_probs = self.guide.blend(log_probs, users, nodes, child).masked_fill(~valid, -torch.inf)
        return log_probs, child


def _sparse_logits(network: Network, hidden: Tensor, tokens: Tensor, valid: Tensor) -> Tensor:
    """Logits [N, K] of the valid tokens alone, one dot product each; -inf elsewhere."""
    logits = torch.full(tokens.shape, -torch.inf, dtype=torch.float32, device=hidden.device)
    row, column = valid.nonzero(as_tuple=True)
    step = max(1, _CHUNK_BYTES // (8 * hidden.shape[1]))
    for r, c in zip(row.split(step), column.split(step), strict=True):
        logits[r, c] = network.paired_logits(hidden[r], tokens[r, c])
    return logits


def _dense_log_probs(
    network: Network, hidden: Tensor, tokens: Tensor, valid: Tensor, normalize: Normalize
) -> Tensor:
    """The same through the whole output projection, a chunk of rows at a time."""
    parts = []
    vocabulary = getattr(network.head, "out_features", 0) or 2**17
    step = max(1, _CHUNK_BYTES // (4 * vocabulary))
    for h, t, v in zip(hidden.split(step), tokens.split(step), valid.split(step), strict=True):
        logits = network.logits(h)
        chosen = logits.gather(1, t).masked_fill(~v, -torch.inf)
        norm = torch.logsumexp(chosen if normalize == "trie" else logits, dim=-1, keepdim=True)
        parts.append(chosen - norm)
    return torch.cat(parts) if parts else torch.zeros(tokens.shape, device=hidden.device)


def check_catalogue(trie: TokenTrie, network: Network) -> None:
    """The trie's tokens must be ones that the model can write inside a title.

    Raises:
        ModelError: a token beyond the model's vocabulary, or the end-of-sequence token inside a title.
    """
    rows = network.body.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    largest = trie.largest_token
    if rows and largest >= rows:
        raise ModelError(f"the trie holds token {largest}, but the model's vocabulary has {rows} tokens")
    if bool((trie.child_token == network.eos_token_id).any()):
        raise ModelError(
            f"the trie holds the model's end-of-sequence token {network.eos_token_id} inside a title; "
            "build it from titles without end-of-sequence"
        )


def check_normalize(normalize: str) -> None:
    """Raises ConfigError for anything but "trie" and "full"."""
    if normalize not in ("trie", "full"):
        raise ConfigError(f'normalize is {normalize!r}; it must be "trie" or "full"')
