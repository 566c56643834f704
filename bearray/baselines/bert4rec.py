"""BERT4Rec: attention that looks both ways over a window, trained to fill in titles that are masked.

    x_l = E[s_l], or m at a masked place;  h = Encoder(x)              m: learned, both ways
    r(l, t) = LN(GELU(W h_l + b)) . E[t] + c_t                         score of title t at place l
    loss = sum over masked l of -log softmax(r(l, .))[s_l]

Masks are drawn anew each epoch: in `last_share` of the windows the last place alone, which is how a title is
asked for, in the others each place with probability `mask_ratio`, and at least one. A history is asked about
by a masked place after it.

Sun et al., CIKM 2019, arXiv 1904.06690. Departures from its code: titles instead of items, windows of the
data protocol instead of one sequence a user; new masks each epoch instead of ten kept copies of the data; the
blocks are SASRec's with GELU and four times the width inside, so there is dropout within the feed-forward
network and none after the attention's output; Adam with a constant learning rate, as all baselines, without
warm-up.

Axis letters: W windows, L places of a history, M masked places, D width, T titles.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding, pad

from bearray.baselines.base import Baseline, seeded
from bearray.baselines.data import PAD, Inputs, TrainBatch
from bearray.baselines.encoder import Encoder, layer_norm
from bearray.config import BERT4RecConfig

MASK = -2
"""Stands where a title is to be filled in."""
_STD = 0.02
"""Of the initial weights."""


class BERT4Rec(Baseline):
    """The network; see the module's formula.

    Args:
        num_titles: T.
        config: sizes, masks, and `config.train.seed` for the initial weights (normal, cut at two deviations).
    """

    name = "bert4rec"
    source = "Sun et al., CIKM 2019, arXiv 1904.06690"

    def __init__(self, num_titles: int, config: BERT4RecConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden
        self.items = nn.Parameter(torch.empty(num_titles, width))
        self.mask = nn.Parameter(torch.empty(1, width))
        self.bias = nn.Parameter(torch.zeros(num_titles))
        with seeded(config.train.seed):
            self.encoder = Encoder(
                places=config.max_history + 1,
                width=width,
                layers=config.layers,
                heads=config.heads,
                dropout=config.dropout,
                causal=False,
                inner=4 * width,
                activation=nn.GELU,
            )
            self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), layer_norm(width))
            for name, parameter in self.named_parameters():
                if parameter.dim() > 1:
                    nn.init.trunc_normal_(parameter, std=_STD, a=-2 * _STD, b=2 * _STD)
                elif name.endswith("bias"):
                    nn.init.zeros_(parameter)

    @classmethod
    def build(cls, inputs: Inputs, config: BERT4RecConfig) -> BERT4Rec:
        return cls(inputs.num_titles, config)

    def scores(self, titles: Tensor, places: Tensor) -> Tensor:
        """Logits at some places.

        Args:
            titles: [W, L + 1] title ids, with `MASK` and `PAD` among them.
            places: [W, L + 1] bool, M of them.

        Returns:
            [M, T]
        """
        x = embedding(titles.clamp(min=0), self.items)
        x = torch.where((titles == MASK).unsqueeze(-1), self.mask, x)
        found: Tensor = self.head(self.encoder(x, titles != PAD)[places]) @ self.items.T + self.bias
        return found

    def forward(self, histories: Tensor) -> Tensor:
        """Logits of the next title: [U, L] title ids, `PAD` on the left -> [U, T]."""
        asked = pad(histories, (0, 1), value=MASK)
        return self.scores(asked, asked == MASK)

    def loss(self, batch: TrainBatch) -> tuple[Tensor, Tensor]:
        """Summed over the masked places, and their number."""
        masked = torch.from_numpy(self.draw_masks(batch.titles.cpu().numpy() != PAD, batch.rng))
        masked = masked.to(batch.titles.device)
        logits = self.scores(batch.titles.masked_fill(masked, MASK), masked)
        return cross_entropy(logits, batch.titles[masked], reduction="sum"), masked.sum()

    def draw_masks(self, real: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Which places are masked: [W, L + 1] bool, of those that are real; at least one in each window."""
        masked = (rng.random(real.shape) < self.config.mask_ratio) & real
        lottery = np.where(real, rng.random(real.shape), -1.0)
        none = ~masked.any(axis=1)
        masked[none, lottery[none].argmax(axis=1)] = True
        last = rng.random(len(real)) < self.config.last_share
        masked[last] = False
        masked[last, -1] = True
        chosen: np.ndarray = masked
        return chosen
