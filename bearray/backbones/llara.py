"""LLaRA: each title of the history is followed by the item's vector from SASRec (Liao et al., SIGIR 2024).

    x(item i) = W2 gelu(W1 e_i + b1) + b2        e_i: row of SASRec's frozen item table

Training is a curriculum: in step c of C a batch has hybrid prompts with probability c / C, else prompts whose
soft tokens are all blank, and then the projector rests. Test prompts are always hybrid.

As in the setting of arXiv 2601.22925 there is no list of candidates: the answer is decoded over the
catalogue's trie. Further departures: BIGRec's wording, quotes around titles and end of sequence, so that
backbones differ in their vectors only; the blank token has the mean of the word embeddings instead of a
random row; adapter, rate and schedule are those of the run (published: rank 8, alpha 32, dropout 0.1 on all
seven linear layers, cosine schedule from 5 % warm-up); SASRec knows titles and not items
(`bearray.baselines`), and has the sizes of `SASRecConfig`. While the projector rests its weights stay, but
Adam's moments decay, because all optimisers here step as one. A run that starts from another one's adapter
(`train.init_adapter`) has passed the curriculum and is hybrid from its first step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from torch import nn

from bearray.backbones.pieces import PiecewisePrompts
from bearray.backbones.soft import BLANK, SoftKind

_CURRICULUM = 18
"""Keeps these random numbers apart from others of the same seed and step."""


class LLaRA(PiecewisePrompts):
    """Prompts with an item's vector behind each title; a title that the catalogue lacks has a blank one."""

    name: ClassVar[str] = "llara"
    source: ClassVar[str] = "Liao et al., SIGIR 2024, arXiv 2312.02445"
    soft_kinds: ClassVar[tuple[SoftKind, ...]] = ("item",)
    curriculum: ClassVar[bool] = True

    def projectors(self, widths: Mapping[SoftKind, int], hidden: int) -> dict[SoftKind, nn.Module]:
        first, second = nn.Linear(widths["item"], hidden), nn.Linear(hidden, hidden)
        return {"item": nn.Sequential(first, nn.GELU(), second)}

    def _behind_unknown(self) -> list[int]:
        return [BLANK]


def hybrid_step(step: int, total_steps: int, seed: int) -> bool:
    """Whether a step of the curriculum has hybrid prompts.

    The same on every worker, for every micro-batch of the step, and when the run is continued.

    Args:
        step: from 0; the last one, total_steps - 1, is always hybrid.
        total_steps: of the run.
        seed: of the run.
    """
    share = min(1.0, (step + 1) / total_steps)
    return bool(np.random.default_rng([seed, step, _CURRICULUM]).random() < share)
