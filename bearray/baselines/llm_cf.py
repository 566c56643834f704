"""LLM-CF: SASRec with examples in context, each with a chain of thought that a language model has written.

    f(h, t)  = F [SASRec(h); B m(h); E[t]; B v[t]]                what is known of a history h and a title t
    context  = Decoder(f_1, B z_1, y_1, ..., f_S, B z_S, y_S, f(h, -))[-1]
    u        = LN(x_L) + a * context;   r(t) = u . E[t]
    loss     = -log softmax over the target and n shared titles of r  [+ rho * (1 - cos(C f'_s, z_s))]

v[t] is the language model's vector of a title, m(h) the mean of a history's, z_s the vector of a chain of
thought about example s, a training window with a title that its user liked (its target) or not, which y_s
says; f'_s is the decoder's state at f_s, f(h, -) has zeros for a title that is not known, F, B and C are
linear. The S examples of a window, half liked and half not, are those whose m is nearest to m(h) by dot
product, the nearest last.

No example tells what is to be predicted: of the window's own user only examples from earlier windows are
shown. (The source lets the window itself through, whose liked title is the target.) When a model is asked,
all training windows are in the past.

Sun et al., CIKM 2024, arXiv 2403.17688. Departures from the code, beside that: titles instead of items;
vectors of titles and chains are the base model's own hidden states, centred and of length 1, instead of a
sentence encoder's; no vector of a user, whom the test may not know; learned positions and blocks as in all
baselines instead of Llama's; chains are written greedily and all kept, where the source samples three, scores
them and keeps the best; scores are trained for each window's target, as there, and not at all places as
SASRec's are.

Axis letters: U users, W windows, E examples, S examples shown, L places of a history, D width, H width of the
language model's vectors, T titles.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, embedding

from bearray.baselines.base import seeded
from bearray.baselines.data import BaselineData, Inputs, TrainBatch
from bearray.baselines.encoder import Encoder
from bearray.baselines.parts import LLMParts, mean_over_history, text_directions
from bearray.baselines.sasrec import SASRec
from bearray.config import LLMCFConfig
from bearray.errors import DataError


def choose_examples(data: BaselineData, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The training windows that a chain of thought is written about, in the split's order.

    Args:
        data: the windows.
        count: how many, at most as many as there are; every other one is about a title that the user has not
            seen, drawn uniformly.
        seed: of the choice.

    Returns:
        Rows of the training split, title ids, and whether the title is the window's target: [E] each.
    """
    rng = np.random.default_rng([seed, 7])
    rows = np.sort(rng.choice(len(data.train), size=min(count, len(data.train)), replace=False))
    liked = rng.permutation(np.arange(len(rows)) % 2 == 0)
    other = data.unseen.draw(data.train.users[rows], 1, rng)[:, 0].numpy()
    return rows, np.where(liked, data.train.targets.numpy()[rows], other), liked


class LLMCF(SASRec):
    """The network; see the module's formula.

    Args:
        data: the training windows.
        parts: vectors of titles, and the examples with their chains of thought.
        config: sizes, weights, seed.

    Raises:
        DataError: parts of other titles, or without examples.
    """

    name = "llm-cf"
    source = "Sun et al., CIKM 2024, arXiv 2403.17688"

    directions: Tensor
    histories: Tensor
    means: Tensor
    rows: Tensor
    users: Tensor
    titles: Tensor
    liked: Tensor
    chains: Tensor

    def __init__(self, data: BaselineData, parts: LLMParts, config: LLMCFConfig) -> None:
        super().__init__(data.num_titles, config)
        self.config = config
        if len(parts.title_vectors) != data.num_titles:
            raise DataError(
                f"the language model's vectors are of {len(parts.title_vectors)} titles, "
                f"the data has {data.num_titles}"
            )
        rows = parts.need("example_rows", self.name)
        directions = text_directions(parts.title_vectors)
        histories = data.train.histories[rows]
        for name, value in (
            ("directions", directions),
            ("histories", histories),
            ("means", mean_over_history(directions, histories)),
            ("rows", rows),
            ("users", torch.from_numpy(data.train.users)[rows]),
            ("titles", parts.need("example_titles", self.name)),
            ("liked", parts.need("example_labels", self.name)),
            ("chains", text_directions(parts.need("example_vectors", self.name))),
        ):
            self.register_buffer(name, value, persistent=False)
        width, said = config.hidden, directions.shape[1]
        with seeded(config.train.seed):
            self.from_text = nn.Linear(said, width)
            self.to_chain = nn.Linear(width, said)
            self.features = nn.Linear(4 * width, width)
            self.labels = nn.Parameter(torch.empty(2, width))
            self.decoder = Encoder(
                places=6 * config.examples_each + 1,
                width=width,
                layers=config.context_layers,
                heads=config.context_heads,
                dropout=config.dropout,
                causal=True,
            )
            new = (self.from_text, self.to_chain, self.features, self.decoder)
            for parameter in [self.labels, *(p for module in new for p in module.parameters())]:
                if parameter.dim() > 1:
                    nn.init.xavier_normal_(parameter)

    @classmethod
    def build(cls, inputs: Inputs, config: LLMCFConfig) -> LLMCF:  # type: ignore[override]
        if inputs.llm is None:
            raise DataError(f"{cls.name} needs what a language model has said about the data")
        return cls(inputs.data, inputs.llm, config)

    def forward(self, histories: Tensor) -> Tensor:
        """Logits of the next title: [U, L] title ids, `PAD` on the left -> [U, T]."""
        return self.user(histories)[0] @ self.items.T

    def loss(self, batch: TrainBatch) -> tuple[Tensor, Tensor]:
        """Summed over the windows, and their number."""
        rows = torch.from_numpy(batch.rows).to(batch.titles.device)
        users = torch.from_numpy(batch.users).to(batch.titles.device)
        user, reconstruction = self.user(batch.titles[:, :-1], rows, users)
        targets = batch.titles[:, -1]
        count = min(self.config.negatives, len(self.items))
        shared = torch.from_numpy(batch.rng.choice(len(self.items), size=count, replace=False))
        shared = shared.to(targets.device)
        others = user @ embedding(shared, self.items).T
        others = others.masked_fill(shared == targets[:, None], -torch.inf)
        scores = torch.cat([(user * embedding(targets, self.items)).sum(1, keepdim=True), others], dim=1)
        terms = cross_entropy(scores, torch.zeros_like(targets), reduction="none")
        if self.config.reconstruction > 0:
            terms = terms + self.config.reconstruction * reconstruction
        return terms.sum(), torch.tensor(len(targets), device=targets.device)

    def user(
        self, histories: Tensor, rows: Tensor | None = None, users: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What is known of users, with their examples.

        Args:
            histories: [U, L] title ids.
            rows, users: [U] of training windows: their numbers and users; None for histories of later times.

        Returns:
            [U, D], and [U] mean of 1 - cosine between the examples' chains and what is predicted of them.
        """
        state = self.hidden(histories)[:, -1]
        mean = mean_over_history(self.directions, histories)
        shown, there = self.examples(mean, rows, users)
        which, place = shown.unique(return_inverse=True)  # an example is read once for a batch
        nothing = torch.zeros_like(state)
        query = self.features(torch.cat([state, self.from_text(mean), nothing, nothing], dim=1))
        read = self.features(
            torch.cat(
                [
                    self.hidden(self.histories[which])[:, -1],
                    self.from_text(self.means[which]),
                    self.embed(self.titles[which]),
                    self.from_text(self.directions[self.titles[which]]),
                ],
                dim=1,
            )
        )
        chain = self.from_text(self.chains[which])
        triples = torch.stack([read, chain, self.labels[self.liked[which].long()]], dim=1)  # [which, 3, D]
        places = torch.cat([triples[place].flatten(1, 2), query[:, None]], dim=1)  # [U, 3 S + 1, D]
        real = torch.cat([there.repeat_interleave(3, dim=1), there.new_ones(len(there), 1)], dim=1)
        states = self.decoder(places, real)
        predicted = self.to_chain(states[:, :-1:3])  # [U, S, H]
        missed = (1 - cosine_similarity(predicted, self.chains[shown], dim=-1)) * there
        missed = missed.sum(1) / there.sum(1).clamp(min=1)
        return state + self.config.context_weight * states[:, -1], missed

    def examples(self, mean: Tensor, rows: Tensor | None, users: Tensor | None) -> tuple[Tensor, Tensor]:
        """The examples that users are shown, the nearest last.

        Args:
            mean: [U, H] of their histories' directions.
            rows, users: as `user`.

        Returns:
            [U, S] numbers of examples, and [U, S] bool: there is one; else the number means nothing.
        """
        score = mean @ self.means.T  # [U, E]
        if rows is not None and users is not None:
            told = (users[:, None] == self.users) & (self.rows >= rows[:, None])
            score = score.masked_fill(told, -torch.inf)
        found = []
        for kind in (self.liked, ~self.liked):
            count = min(self.config.examples_each, int(kind.sum()))
            found.append(score.masked_fill(~kind, -torch.inf).topk(count, dim=1))
        value = torch.cat([f.values for f in found], dim=1)
        order = value.argsort(dim=1, stable=True)
        number = torch.cat([f.indices for f in found], dim=1).gather(1, order)
        return number, value.gather(1, order) > -torch.inf
