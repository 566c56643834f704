"""The windows of a worker, and the part of the loss, to blame for a loss that is no longer a finite number.

It is looked for only once it has happened: the same micro-batches go through the model again, a window at a
time and without an update, and every part of the loss is looked at in the order in which it is computed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from bearray.batching import TokenBatch
from bearray.objectives import AnswerTokens, LossOutput, Objective
from bearray.step import TrainStep
from bearray.training.adam import trainable
from bearray.training.diverged import What


@dataclass
class Culprits:
    """What one worker has found among its windows."""

    weights: list[str] = field(default_factory=list)
    """Weights of the adapter that are not finite."""
    windows: list[tuple[int, int, str]] = field(default_factory=list)
    """(row of the window, place of the term in the order of computation, term)."""
    gradients: list[str] = field(default_factory=list)
    """Weights whose gradient is not finite."""


def examine(module: TrainStep, windows: Iterable[tuple[int, TokenBatch]], what: What) -> Culprits:
    """Look for the parts of the loss, or of its gradient, that are not finite.

    With dropout a window need not behave alone as it did in its micro-batch; then nothing may be found.

    Args:
        module: the training step; its weights must be whole on this worker.
        windows: (row, batch of this window alone).
        what: whether the loss itself is not finite, or its gradient only.
    """
    weights = trainable(module)
    found = Culprits(weights=broken_weights(module))
    gradients: dict[str, None] = {}
    for row, batch in windows:
        parts, total = _parts(module, batch, with_gradient=what == "gradient")
        bad = [(place, name) for place, (name, fine) in enumerate(parts.items()) if not fine]
        if bad:
            found.windows.append((row, *bad[0]))
        elif what == "gradient" and total.requires_grad:
            slopes = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
            steep = [
                name
                for name, slope in zip(weights, slopes, strict=True)
                if slope is not None and not bool(slope.isfinite().all())
            ]
            if steep:
                found.windows.append((row, len(parts), "gradient"))
                gradients |= dict.fromkeys(steep)
    found.gradients = list(gradients)
    return found


def broken_weights(module: TrainStep) -> list[str]:
    """Names of the trained weights that are not finite; they must be whole on this worker."""
    return [name for name, p in trainable(module).items() if not bool(p.isfinite().all())]


def _parts(
    module: TrainStep, batch: TokenBatch, *, with_gradient: bool
) -> tuple[dict[str, bool], torch.Tensor]:
    """Whether each part of the loss is finite, in the order of computation, and the loss."""
    objective = module.objective
    probe = _Probe(objective)
    module.objective = probe  # type: ignore[assignment]  # it stands in for the objective
    try:
        with torch.set_grad_enabled(with_gradient):
            output: LossOutput = module(batch)
    finally:
        module.objective = objective
    sums = {name: metric[0] for name, metric in output.metrics.items()}
    values = probe.inputs | sums | {"loss": output.total}
    return {name: _fine(name, value) for name, value in values.items()}, output.total


def _fine(name: str, value: torch.Tensor) -> bool:
    """All finite; a threshold of -inf says that nothing can be pruned there."""
    if name == "thresholds":
        value = value[value != -torch.inf]
    return bool(value.isfinite().all())


class _Probe:
    """An objective that remembers what it was given."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.inputs: dict[str, torch.Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.objective, name)

    def __call__(self, tokens: AnswerTokens) -> LossOutput:
        self.inputs = {"logits": tokens.logits, **tokens.extras, **tokens.window_extras}
        if tokens.logits_without_history is not None:
            self.inputs["logits_without_history"] = tokens.logits_without_history
        return self.objective(tokens)
