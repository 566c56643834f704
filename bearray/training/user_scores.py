"""Scores of all titles for training windows by SASRec, for objectives that lean on a text-free model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bearray.baselines import Fitted
from bearray.terminal import terminal


class SASRecScores:
    """SASRec's logits, for training windows by number.

    SASRec was trained to tell these very targets from titles drawn by chance, so its scores know more of a
    training window than they would of a new one.

    Args:
        sasrec: the trained model.
        histories: [W] title ids of each training window's history, oldest first.
        announce: say on stderr which model it is.
    """

    def __init__(self, sasrec: Fitted, histories: Sequence[Sequence[int]], *, announce: bool = False) -> None:
        self.sasrec, self.histories = sasrec, histories
        if announce:
            valid = sasrec.history[sasrec.best_epoch - 1]["valid_ndcg@10"]
            terminal(stderr=True, soft_wrap=True).print(
                f"scores for users are SASRec's: epoch {sasrec.best_epoch}, validation NDCG@10 {valid:.4f}, "
                f"kept in {sasrec.folder}"
            )

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """[R, titles] float32 on the CPU, of windows [R] by number."""
        return self.sasrec.title_scores([self.histories[r] for r in rows.tolist()])
