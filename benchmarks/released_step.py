"""The released way of a training step, written plainly, for comparison (`benchmarks/training.py`).

What the published code of MSL and BEAR does, in few words: windows in random order, rows padded on the left
to a multiple of 8, logits at all positions over the whole vocabulary, a dense mask [rows, answer tokens,
vocabulary] of valid next tokens, losses over it. Written for this comparison from that description; none of
that code is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bearray.batching import Example


class ReleasedStep:
    """Loss of a micro-batch.

    Args:
        model: a causal LM with an adapter.
        catalogue: tokens of each title.
        eos: what ends a title. pad: what fills rows up.
        objective: "sft", "msl" or "bear".
        lam, xi, beam_width: BEAR's.
    """

    def __init__(
        self,
        model: Any,
        catalogue: Sequence[Sequence[int]],
        eos: int,
        pad: int,
        objective: str,
        *,
        lam: float = 0.25,
        xi: float = 1.0,
        beam_width: int = 10,
    ) -> None:
        self.model, self.eos, self.pad, self.objective = model, eos, pad, objective
        self.lam, self.xi, self.beam_width = lam, xi, beam_width
        self.root: dict[int, Any] = {}
        for title in catalogue:
            node = self.root
            for token in [*title, eos]:
                node = node.setdefault(token, {})

    def __call__(self, examples: Sequence[Example]) -> Tensor:
        device = next(self.model.parameters()).device
        longest = max(len(e.prompt) + len(e.answer) for e in examples)
        width = -(-longest // 8) * 8
        ids = torch.full((len(examples), width), self.pad)
        attention = torch.zeros(len(examples), width, dtype=torch.long)
        labels = torch.full((len(examples), width), -100)
        for r, e in enumerate(examples):
            row = [*e.prompt, *e.answer]
            ids[r, width - len(row) :] = torch.tensor(row)
            attention[r, width - len(row) :] = 1
            labels[r, width - len(e.answer) :] = torch.tensor(e.answer)
        ids, attention, labels = (x.to(device) for x in (ids, attention, labels))
        logits = self.model(input_ids=ids, attention_mask=attention).logits.float()
        if self.objective == "sft":
            return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        steps = max(len(e.answer) for e in examples)
        valid = self._valid(examples, steps, logits.shape[-1]).to(device)
        return self._masked_loss(logits[:, -steps - 1 : -1], labels[:, -steps:], valid)

    def _valid(self, examples: Sequence[Example], steps: int, vocabulary: int) -> Tensor:
        """[rows, steps, vocabulary] bool, padded on the left with True."""
        valid = torch.ones(len(examples), steps, vocabulary, dtype=torch.bool)
        for r, e in enumerate(examples):
            node = self.root
            for k, token in enumerate(e.answer, steps - len(e.answer)):
                valid[r, k] = False
                valid[r, k, list(node)] = True
                node = node[token]
        return valid

    def _masked_loss(self, logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        log_q = logits.masked_fill(~valid, -torch.inf).log_softmax(-1)
        real = labels != -100
        log_y = log_q.gather(-1, labels.clamp_min(0)[..., None])[..., 0]
        if self.objective == "msl":
            return -log_y[real].mean()
        with torch.no_grad():
            best = log_q.topk(self.beam_width, dim=-1).values[..., -1]
            smallest = log_q.masked_fill(~valid, torch.inf).amin(-1)
            beta = torch.where(best.isinf(), smallest, best)
            weight = (1 + self.lam * torch.sigmoid((log_y - beta) / self.xi)) * real
            divisor = (weight * (valid.sum(-1) > 1)).sum() + 1e-8
        return (weight * -log_y.masked_fill(~real, 0.0)).sum() / divisor
