"""Stage 1 of A-LLMRec: one space for what SASRec and what a text encoder know of an item.

    f(e) = s(W1 e + b1)        e^ = W2 f(e) + b2        e: item vector of SASRec [D]; s: sigmoid
    g(t) = s(W3 t + b3)        t^ = W4 g(t) + b4        t: vector of the item's text [H]

    L = sum over a positive p and a negative n of
            BCE(mean(u * e^), is it p)                  u: SASRec's last state; a mean, not a sum, over D
          + MSE(f(e), g(t)) + 0.5 MSE(e^, e) + 0.2 MSE(t^, t)

Kim et al., KDD 2024, arXiv 2404.11343, as released. Departures: the text vectors are frozen and scaled to
mean 0 and mean square 1 (the published ones are an SBERT's, which is trained along); positives are the
targets of all training windows, negatives titles that the user has not seen.

Axis letters: N windows, D width of SASRec, H width of the text vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

SPACE = 128
"""Size of the common space."""
ITEM_WEIGHT, TEXT_WEIGHT = 0.5, 0.2
"""Of the two reconstructions."""


class _Coder(nn.Module):
    def __init__(self, width: int, space: int) -> None:
        super().__init__()
        self.encode = nn.Linear(width, space)
        self.decode = nn.Linear(space, width)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(in the common space, back again)."""
        inner = torch.sigmoid(self.encode(vectors))
        return inner, self.decode(inner)


class Alignment(nn.Module):
    """Encoders and decoders of items and texts; see the module's formulas.

    Args:
        item_width: D. text_width: H. space: size of the common space.
    """

    def __init__(self, item_width: int, text_width: int, space: int = SPACE) -> None:
        super().__init__()
        self.items = _Coder(item_width, space)
        self.texts = _Coder(text_width, space)

    def aligned(self, items: Tensor) -> Tensor:
        """f: [..., D] -> [..., space]."""
        inner: Tensor = self.items(items)[0]
        return inner

    def losses(self, users: Tensor, items: Tensor, texts: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms of one side, the positives or the negatives, each a mean over windows.

        Args:
            users: [N, D]. items: [N, D]. texts: [N, H]. labels: [N] float, 1 for positives, 0 for negatives.

        Returns:
            "recommendation", "matching", "item" and "text" (reconstructions), unweighted.
        """
        inner_item, item_again = self.items(items)
        inner_text, text_again = self.texts(texts)
        logits = (users * item_again).mean(-1)
        return {
            "recommendation": binary_cross_entropy_with_logits(logits, labels),
            "matching": mse_loss(inner_item, inner_text),
            "item": mse_loss(item_again, items),
            "text": mse_loss(text_again, texts),
        }

    def loss(self, users: Tensor, positive: tuple[Tensor, Tensor], negative: tuple[Tensor, Tensor]) -> Tensor:
        """L of some windows.

        Args:
            users: [N, D]. positive, negative: (items [N, D], texts [N, H]).
        """
        total = users.new_zeros(())
        for (items, texts), label in ((positive, 1.0), (negative, 0.0)):
            part = self.losses(users, items, texts, users.new_full((len(users),), label))
            total = total + part["recommendation"] + part["matching"]
            total = total + ITEM_WEIGHT * part["item"] + TEXT_WEIGHT * part["text"]
        return total


def standardised(vectors: Tensor) -> Tensor:
    """[T, H] float32 with mean 0 over rows and mean square 1 over all: hidden states of a language model
    share one large component, which hides all else."""
    centred = vectors.float() - vectors.float().mean(0)
    scaled: Tensor = centred / centred.square().mean().sqrt().clamp(min=1e-12)
    return scaled
