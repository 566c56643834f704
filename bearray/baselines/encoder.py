"""The Transformer that all baselines are made of: learned positions and blocks that normalise last.

    x = x + P                                    P: positions, counted from the newest place
    x = LN(x + Attention(x));  x = LN(x + FFN(x))                   for each block

Padding is never looked at. A causal encoder looks back only, another one both ways.

Axis letters: W windows, L places of a history, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, scaled_dot_product_attention

_EPS = 1e-8
"""Of the norms, as in SASRec's PyTorch port."""


class Encoder(nn.Module):
    """Vectors of places in, vectors of places out.

    Weights are as PyTorch makes them, positions empty; the owner initialises them.

    Args:
        places: longest sequence.
        width: D.
        layers: blocks.
        heads: attention heads; must divide `width`.
        dropout: on what comes in, on attention weights and in the feed-forward networks.
        causal: a place looks at itself and what is before it, else at all places.
        inner: width inside the feed-forward networks (None: D).
        activation: of the feed-forward networks.
    """

    def __init__(
        self,
        *,
        places: int,
        width: int,
        layers: int,
        heads: int,
        dropout: float,
        causal: bool,
        inner: int | None = None,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.dropout, self.causal = dropout, causal
        self.positions = nn.Parameter(torch.empty(places, width))
        self.blocks = nn.ModuleList(
            _Block(width, heads, dropout, inner or width, activation) for _ in range(layers)
        )

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """[W, L, D], and which places are real [W, L] -> [W, L, D]; at others, nothing of meaning.

        A sequence may be shorter than `places`, and is then taken to be padded on the left.
        """
        places = x.shape[1]
        x = dropout(x + self.positions[len(self.positions) - places :], self.dropout, self.training)
        seen = torch.ones(places, places, dtype=torch.bool, device=x.device)
        if self.causal:
            seen = seen.tril()
        itself = torch.eye(places, dtype=torch.bool, device=x.device)  # or padding would have no key at all
        visible = (seen & real[:, None, :]) | itself  # [W, L, L]
        for block in self.blocks:
            x = block(x, visible[:, None])
        return x


def layer_norm(width: int) -> nn.LayerNorm:
    """A norm as in the blocks."""
    return nn.LayerNorm(width, eps=_EPS)


class _Block(nn.Module):
    """Attention and a feed-forward network of two layers, each added and normalised."""

    def __init__(self, width: int, heads: int, rate: float, inner: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.heads, self.rate = heads, rate
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm = layer_norm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, inner), nn.Dropout(rate), activation(), nn.Linear(inner, width), nn.Dropout(rate)
        )
        self.feed_forward_norm = layer_norm(width)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """[W, L, D], and which keys a place may look at [W, 1, L, L] -> [W, L, D]."""
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # each [W, heads, L, D / heads]
        rate = self.rate if self.training else 0.0
        seen = scaled_dot_product_attention(q, k, v, attn_mask=visible, dropout_p=rate)
        x = self.norm(x + self.out(seen.transpose(1, 2).flatten(2)))
        result: Tensor = self.feed_forward_norm(x + self.feed_forward(x))
        return result
