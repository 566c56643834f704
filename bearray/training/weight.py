"""What a step's loss, summed over micro-batches and workers, is divided by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from bearray.batching import Example, TokenBatch
from bearray.extras import Extras
from bearray.objectives import LossOutput, Objective
from bearray.training.sums import summed
from bearray.trie import TokenTrie


class StepWeight:
    """Finds the weight of a step before its forward passes, as far as that can be done.

    Args:
        examples: the training windows.
        trie: the catalogue's titles, on the CPU.
        extras: what objectives may take weights from.
        world: how many workers there are.
        device: of the model.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        trie: TokenTrie,
        extras: Extras,
        *,
        world: int,
        device: torch.device,
    ) -> None:
        self.extras, self.world, self.device = extras, world, device
        branching = trie.child_count(torch.tensor([n for e in examples for n in e.nodes])).gt(1).numpy()
        self._tokens = np.array([len(e.answer) for e in examples])
        starts = np.concatenate([[0], np.cumsum(self._tokens)[:-1]])
        self._branching = np.add.reduceat(branching.astype(np.int64), starts)

    def known(
        self,
        loss: Objective,
        batch: np.ndarray,
        micro: Sequence[TokenBatch],
        forward: Callable[[int], LossOutput],
    ) -> torch.Tensor | None:
        """The step's weight, or None where the single forward pass will tell; a collective.

        Every worker knows the whole batch, so counts need no communication. Where the weight depends on the
        logits of several micro-batches, they are computed once more, without gradients, first.

        Args:
            loss: of the round under way.
            batch: [windows] int64 numbers of the windows in the global batch.
            micro: this worker's micro-batches.
            forward: what a micro-batch, by number, comes to.
        """
        if loss.weight_from == "counts":
            tokens, branching = int(self._tokens[batch].sum()), int(self._branching[batch].sum())
            total = loss.weight_of(tokens, branching, len(batch))
            return torch.tensor(total, dtype=torch.float64, device=self.device)
        if loss.weight_from == "extras":
            own = [loss.token_weights(self.extras(b), b.instance).sum().double() for b in micro]
            return summed(torch.stack(own).sum(), self.world)
        if len(micro) == 1:
            return None
        with torch.no_grad():
            weights = [forward(k).weight.double() for k in range(len(micro))]
        return summed(torch.stack(weights).sum(), self.world)
