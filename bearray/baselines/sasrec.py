"""SASRec: self-attention over the ids of a history, trained with binary cross-entropy.

    x_l = sqrt(D) * E[s_l]                                            s_l: title at place l
    x   = Encoder(x)                                                  causal, `bearray.baselines.encoder`
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
from torch.nn.functional import embedding, softplus

from bearray.baselines.base import Baseline, seeded
from bearray.baselines.cache import Fitted, Job, load_or_train
from bearray.baselines.data import PAD, Inputs, TrainBatch
from bearray.baselines.encoder import Encoder, layer_norm
from bearray.config import BaselineConfig, SASRecConfig
from bearray.data import Dataset


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

    def __init__(self, num_titles: int, config: BaselineConfig) -> None:
        super().__init__()
        self.items = nn.Parameter(torch.empty(num_titles, config.hidden))
        with seeded(config.train.seed):
            self.encoder = Encoder(
                places=config.max_history,
                width=config.hidden,
                layers=config.layers,
                heads=config.heads,
                dropout=config.dropout,
                causal=True,
            )
            self.last_norm = layer_norm(config.hidden)
            for parameter in self.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_normal_(parameter)

    @classmethod
    def build(cls, inputs: Inputs, config: SASRecConfig) -> SASRec:
        return cls(inputs.num_titles, config)

    def embed(self, titles: Tensor) -> Tensor:
        """Title ids, `PAD` among them, as what goes into the encoder: [...] -> [..., D]."""
        return embedding(titles.clamp(min=0), self.items) * math.sqrt(self.items.shape[1])

    def hidden(self, histories: Tensor) -> Tensor:
        """What is known after each place: [W, L] title ids -> [W, L, D]; at padding, nothing of meaning.

        A history may be shorter than `max_history`, and is then taken to be padded on the left.
        """
        hidden: Tensor = self.last_norm(self.encoder(self.embed(histories), histories != PAD))
        return hidden

    def forward(self, histories: Tensor) -> Tensor:
        """Logits of the next title: [U, L] title ids, `PAD` on the left -> [U, T]."""
        return self.hidden(histories)[:, -1] @ self.items.T

    def loss(self, batch: TrainBatch) -> tuple[Tensor, Tensor]:
        """Summed over the places that have a next title, and their number."""
        real = batch.titles[:, :-1] != PAD
        negatives = batch.draw_unseen(real.shape[1])
        hidden = self.hidden(batch.titles[:, :-1])
        terms = self.own_loss(hidden[real], batch.titles[:, 1:][real], negatives[real])
        return terms.sum(), real.sum()

    def own_loss(self, hidden: Tensor, following: Tensor, negatives: Tensor) -> Tensor:
        """[N] the loss of N places.

        Args:
            hidden: [N, D] what is known after each.
            following: [N] its next title.
            negatives: [N] a title that the user has not seen.
        """
        positive = (hidden * embedding(following, self.items)).sum(-1)
        return bce_one_negative(positive, (hidden * embedding(negatives, self.items)).sum(-1))


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
    inputs = Inputs(dataset, title_of_item, settings.max_history)
    return load_or_train(Job(SASRec, settings, inputs), cache_dir=cache_dir, progress=progress)
