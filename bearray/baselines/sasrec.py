"""SASRec: self-attention over the ids of a history, trained with binary cross-entropy.

    x_l = sqrt(D) * E[s_l] + P[l]                                     s_l: title at place l, P: learned
    x   = LN(x + Attention(x));  x = LN(x + FFN(x))                   for each block, causal
    r(l, t) = LN(x_l) . E[t]                                          score of title t after places 1 .. l
    loss = sum over l of -log s(r(l, s_{l+1})) - log s(-r(l, n_l))    s: sigmoid, n_l: uniform unseen title

Kang and McAuley, ICDM 2018, arXiv 1808.09781, in the form of its PyTorch port (embeddings times sqrt(D), norm
after each half of a block). Departures: titles instead of items (`bearray.baselines.data`); windows of the
data protocol, which overlap, instead of one sequence a user, each at all its places; padding is masked as a
key, too, so that it has no influence at all; sums instead of means, which the loop divides.

Axis letters: U users, W windows, L places of a history, D width, T titles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, embedding, scaled_dot_product_attention, softplus

from bearray.baselines.base import Baseline, seeded
from bearray.baselines.cache import Fitted, load_or_train
from bearray.baselines.data import PAD, TrainBatch
from bearray.config import SASRecConfig
from bearray.data import Dataset

_EPS = 1e-8
"""Of the norms, as in the port."""


def bce_one_negative(positive: Tensor, negative: Tensor) -> Tensor:
    """-log sigmoid(positive) - log sigmoid(-negative), elementwise; stable for logits of any size."""
    return softplus(-positive) + softplus(negative)


class SASRec(Baseline):
    """The network; see the module's formula.

    Args:
        num_titles: T.
        config: sizes, and `config.train.seed` for the initial weights (Xavier normal, as in the port).
    """

    name = "sasrec"
    source = "Kang and McAuley, ICDM 2018, arXiv 1808.09781"

    def __init__(self, num_titles: int, config: SASRecConfig) -> None:
        super().__init__()
        width = config.hidden
        self.dropout = config.dropout
        self.items = nn.Parameter(torch.empty(num_titles, width))
        self.positions = nn.Parameter(torch.empty(config.max_history, width))
        with seeded(config.train.seed):
            self.blocks = nn.ModuleList(
                _Block(width, config.heads, config.dropout) for _ in range(config.layers)
            )
            self.last_norm = nn.LayerNorm(width, eps=_EPS)
            for parameter in self.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_normal_(parameter)

    def hidden(self, histories: Tensor) -> Tensor:
        """What is known after each place: [W, L] title ids -> [W, L, D]; at padding, nothing of meaning.

        A history may be shorter than `max_history`, and is then taken to be padded on the left.
        """
        real = histories != PAD
        places = histories.shape[1]
        x = embedding(histories.clamp(min=0), self.items) * math.sqrt(self.items.shape[1])
        x = x + self.positions[len(self.positions) - places :]
        x = dropout(x, self.dropout, self.training)
        causal = torch.ones(places, places, dtype=torch.bool, device=x.device).tril()
        itself = torch.eye(places, dtype=torch.bool, device=x.device)  # or padding would have no key at all
        visible = (causal & real[:, None, :]) | itself  # [W, L, L]
        for block in self.blocks:
            x = block(x, visible[:, None])
        hidden: Tensor = self.last_norm(x)
        return hidden

    def forward(self, histories: Tensor) -> Tensor:
        """Logits of the next title: [U, L] title ids, `PAD` on the left -> [U, T]."""
        return self.hidden(histories)[:, -1] @ self.items.T

    def loss(self, batch: TrainBatch) -> tuple[Tensor, Tensor]:
        """Summed over the places that have a next title, and their number."""
        histories, following = batch.titles[:, :-1], batch.titles[:, 1:]
        real = histories != PAD
        negatives = batch.draw_unseen(histories.shape[1])
        hidden = self.hidden(histories)[real]  # [places, D]
        positive = (hidden * embedding(following[real], self.items)).sum(-1)
        negative = (hidden * embedding(negatives[real], self.items)).sum(-1)
        return bce_one_negative(positive, negative).sum(), real.sum()


class _Block(nn.Module):
    """Attention and a feed-forward network of two layers of the same width, each added and normalised."""

    def __init__(self, width: int, heads: int, rate: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, rate
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, width), nn.Dropout(rate), nn.ReLU(), nn.Linear(width, width), nn.Dropout(rate)
        )
        self.feed_forward_norm = nn.LayerNorm(width, eps=_EPS)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """[W, L, D], and which keys a place may look at [W, 1, L, L] -> [W, L, D]."""
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # each [W, heads, L, D / heads]
        rate = self.rate if self.training else 0.0
        seen = scaled_dot_product_attention(q, k, v, attn_mask=visible, dropout_p=rate)
        x = self.norm(x + self.out(seen.transpose(1, 2).flatten(2)))
        result: Tensor = self.feed_forward_norm(x + self.feed_forward(x))
        return result


def load_or_train_sasrec(
    dataset: Dataset,
    title_of_item: Mapping[int, int],
    config: SASRecConfig | None = None,
    *,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> Fitted:
    """SASRec trained on a data set's training split, at its best epoch by validation NDCG@10.

    Trained once for the same data, titles and settings, and kept in the user's cache; `Fitted.scores_for` is
    the text-free model that D3 decoding, RosePO's oracle and Flower ask. Arguments, result and errors as
    `bearray.baselines.cache.load_or_train`.
    """
    settings = config or SASRecConfig()
    return load_or_train(
        lambda num_titles: SASRec(num_titles, settings),
        dataset,
        title_of_item,
        settings,
        name=SASRec.name,
        max_history=settings.max_history,
        train=settings.train,
        cache_dir=cache_dir,
        progress=progress,
    )
