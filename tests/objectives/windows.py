"""Windows with several answers, as the training step gives them to a loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bearray.objectives import AnswerTokens
from bearray.objectives.tokens import Answers
from bearray.trie import TokenTrie

TITLES = [[5, 1], [5, 1, 2], [5, 3], [7, 2, 2, 2], [9], [7, 4], [5, 1, 6, 8]]
EOS = 11
TRIE = TokenTrie.from_sequences(TITLES)


@dataclass
class Windows:
    """Windows (titles each, the target first), with logits and extras of their answers' tokens."""

    titles: list[list[int]]
    logits: Tensor
    extras: dict[str, Tensor] = field(default_factory=dict)
    window_extras: dict[str, Tensor] = field(default_factory=dict)

    @property
    def answers(self) -> list[list[int]]:
        """The tokens of each answer, its end among them."""
        return [[*TITLES[t], EOS] for own in self.titles for t in own]

    def rows(self) -> Iterator[tuple[int, int, list[int]]]:
        """(window, title, rows of its tokens) of each answer."""
        first = 0
        for w, own in enumerate(self.titles):
            for title in own:
                yield w, title, list(range(first, first + len(TITLES[title]) + 1))
                first += len(TITLES[title]) + 1

    @property
    def nodes(self) -> Tensor:
        paths = TRIE.path_nodes([a[:-1] for a in self.answers])
        return torch.tensor([n for path in paths for n in path], dtype=torch.long)

    @property
    def instance(self) -> Tensor:
        return torch.tensor([i for i, a in enumerate(self.answers) for _ in a], dtype=torch.long)

    def part(self, windows: list[int]) -> Windows:
        """Some of the windows."""
        rows = [r for w, _, own in self.rows() if w in windows for r in own]
        return Windows(
            [self.titles[w] for w in windows],
            self.logits[rows],
            {name: x[rows] for name, x in self.extras.items()},
            {name: x[windows] for name, x in self.window_extras.items()},
        )

    def tokens(self) -> AnswerTokens:
        """The same as a loss is given it."""
        flat = [(w, t) for w, own in enumerate(self.titles) for t in own]
        return AnswerTokens.build(
            self.logits,
            torch.tensor([x for a in self.answers for x in a], dtype=torch.long),
            self.nodes,
            TRIE,
            EOS,
            self.instance,
            torch.tensor([k for a in self.answers for k in range(len(a))], dtype=torch.long),
            extras=self.extras,
            answers=Answers(
                title=torch.tensor([t for _, t in flat], dtype=torch.long),
                window=torch.tensor([w for w, _ in flat], dtype=torch.long),
                is_target=torch.tensor([k == 0 for own in self.titles for k in range(len(own))]) > 0,
                length=torch.tensor([len(a) for a in self.answers], dtype=torch.long),
                score=torch.zeros(len(flat)),
                num_windows=len(self.titles),
            ),
            window_extras=self.window_extras,
        )


def windows(titles: list[list[int]], seed: int = 0, scale: float = 2.0) -> Windows:
    """Random logits, reference log-probabilities and scores of users, all float64."""
    g = torch.Generator().manual_seed(seed)
    rows = sum(len(TITLES[t]) + 1 for own in titles for t in own)
    logits = (scale * torch.randn(rows, EOS + 1, generator=g, dtype=torch.float64)).requires_grad_()
    reference = -3 * torch.rand(rows, generator=g, dtype=torch.float64)
    scores = torch.randn(len(titles), len(TITLES), generator=g, dtype=torch.float64)
    return Windows(titles, logits, {"reference": reference}, {"user_scores": scores})


def log_prob(row: Tensor, token: int) -> Tensor:
    """log of a token's probability over the whole vocabulary, the plain way."""
    return row[token] - row.exp().sum().log()
