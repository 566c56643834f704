"""Rows to test losses on: random ones, and the corners where a masked softmax goes wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from bearray.objectives import AnswerTokens


def random_rows(
    seed: int, *, rows: int = 13, vocabulary: int = 17, scale: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [N,V] float64, targets, valid [N,V]; row 0 is forced, row 1 has all tokens, row 2 has two."""
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, vocabulary, generator=g, dtype=torch.float64) * scale
    targets = torch.randint(vocabulary, (rows,), generator=g)
    density = torch.rand(rows, 1, generator=g)
    valid = torch.rand(rows, vocabulary, generator=g) < density
    for row, density_of_row in ((0, False), (1, True), (2, False)):
        if row < rows:
            valid[row] = density_of_row
    if rows > 2:
        valid[2, (targets[2] + 1) % vocabulary] = True
    valid[torch.arange(rows), targets] = True
    return logits, targets, valid


def allowed(valid: Tensor) -> list[list[int]]:
    """The valid columns of each row."""
    return [row.nonzero()[:, 0].tolist() for row in valid]


def as_tokens(
    logits: Tensor, targets: Tensor, valid: Tensor, *, branching_only: bool = False
) -> AnswerTokens:
    """The same rows as the training step gives them: ragged candidates, forced rows left out if asked."""
    total = len(targets)
    if branching_only:
        keep = valid.sum(1) > 1
        logits, targets, valid = logits[keep], targets[keep], valid[keep]
    rows = len(targets)
    width = max([int(n) for n in valid.sum(1)] or [1])
    candidates = torch.zeros(rows, width, dtype=torch.long)
    candidate_valid = torch.zeros(rows, width, dtype=torch.bool)
    for n, columns in enumerate(allowed(valid)):
        candidates[n, : len(columns)] = torch.tensor(columns)
        candidate_valid[n, : len(columns)] = True
    index = torch.arange(rows)
    return AnswerTokens.from_candidates(
        logits, targets, candidates, candidate_valid, index // 4, index % 4, num_answer_tokens=total
    )
