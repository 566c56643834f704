"""DLLM2Rec: SASRec with DROS, taught by a language model: by its vectors of titles, and by the titles it
recommends.

    x_l   = sqrt(D) * E[s_l] + a * (V v[s_l] + c)                 v[t]: the language model's vector of title t
    loss  = DROS's + distill * sum_k w_k (bce(q_k) + alpha * robust(q_k))     at the last place of each window
    w_k   ~ g1 exp(-k) / sum_j exp(-j) + g2 exp(-d_k) / sum_j exp(-d_j) + g3 1[q_k in the student's list]

q_1 .. q_K are the titles that the teacher, a language model, recommends for the window, d_k their distances
from what it wrote (BIGRec's grounding), the w_k of a window add up to 1 and are constants to the gradient;
bce and robust are those of the other terms with q_k in the place of the next title, the negative the same for
all k; the student's list is its K best titles.

Cui et al., RecSys 2024, arXiv 2405.00338. Departures from the code, some of them from its slips: the negative
part of bce is -log s(-r) and not -log s(1 - r); exp(-d) has no 1e-8 added, which would level out large
distances; the width of the language model's vectors is the model's own and not 4096; validation, not the test
split, stops the training; the robust term is the paper's unless `form` says otherwise
(`bearray.baselines.dros`). DROS's loss is at all places of a window (there at the last one), so the
distillation, which is not, is multiplied by the mean number of places of a window: over an epoch both are
means of the weight that the formula gives them.

Axis letters: W windows, L places of a history, K titles of the teacher, T titles, H width of the teacher's
vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from bearray.baselines.base import seeded
from bearray.baselines.data import PAD, Inputs, TrainBatch
from bearray.baselines.dros import DROS
from bearray.baselines.parts import LLMParts
from bearray.baselines.sasrec import bce_one_negative
from bearray.config import DLLM2RecConfig
from bearray.errors import DataError


def teacher_weights(distances: Tensor, agreed: Tensor, config: DLLM2RecConfig) -> Tensor:
    """How much each title of the teacher's lists counts.

    Args:
        distances: [W, K] from what the teacher wrote.
        agreed: [W, K] bool: the student has the title in its own list.
        config: the three weights.

    Returns:
        [W, K], rows add up to 1.
    """
    places = torch.arange(1, distances.shape[1] + 1, device=distances.device, dtype=distances.dtype)
    found = (
        config.by_rank * (-places).softmax(0)
        + config.by_confidence * (-distances).softmax(1)
        + config.by_agreement * agreed.to(distances.dtype)
    )
    return found / found.sum(1, keepdim=True)


class DLLM2Rec(DROS):
    """The network; see the module's formula.

    Args:
        counts: [T] how often each title is the next one in training.
        places: mean number of places of a training window.
        parts: vectors of titles, and the teacher's lists for all training windows.
        config: sizes, weights, seed.

    Raises:
        DataError: parts of other titles, or without a teacher's lists.
    """

    name = "dllm2rec"
    source = "Cui et al., RecSys 2024, arXiv 2405.00338"

    vectors: Tensor
    teacher_titles: Tensor
    teacher_distances: Tensor

    def __init__(self, counts: Tensor, places: float, parts: LLMParts, config: DLLM2RecConfig) -> None:
        super().__init__(counts, config)
        self.config, self.places = config, places
        if len(parts.title_vectors) != len(counts):
            raise DataError(
                f"the language model's vectors are of {len(parts.title_vectors)} titles, "
                f"the data has {len(counts)}"
            )
        for name, value in (
            ("vectors", parts.title_vectors),
            ("teacher_titles", parts.need("teacher_titles", self.name)),
            ("teacher_distances", parts.need("teacher_distances", self.name)),
        ):
            self.register_buffer(name, value, persistent=False)
        with seeded(config.train.seed):
            self.text = nn.Linear(parts.title_vectors.shape[1], config.hidden)
            nn.init.xavier_normal_(self.text.weight)

    @classmethod
    def build(cls, inputs: Inputs, config: DLLM2RecConfig) -> DLLM2Rec:  # type: ignore[override]
        if inputs.llm is None:
            raise DataError(f"{cls.name} needs what a language model has said about the data")
        data = inputs.data
        places = float((data.train.histories != PAD).sum()) / max(1, len(data.train))
        return cls(data.label_counts(), places, inputs.llm, config)

    def embed(self, titles: Tensor) -> Tensor:
        """Title ids, `PAD` among them, as what goes into the encoder: [...] -> [..., D]."""
        said: Tensor = self.text(embedding(titles.clamp(min=0), self.vectors))
        return super().embed(titles) + self.config.text_weight * said

    def loss(self, batch: TrainBatch) -> tuple[Tensor, Tensor]:
        """Summed over the places that have a next title, the distillation as the module says; their
        number."""
        histories = batch.titles[:, :-1]
        real = histories != PAD
        negatives = batch.draw_unseen(real.shape[1])
        hidden = self.hidden(histories)
        total = self.own_loss(hidden[real], batch.titles[:, 1:][real], negatives[real]).sum()
        if self.config.distill > 0:
            rows = torch.from_numpy(batch.rows).to(histories.device)
            taught = self.distillation(hidden[:, -1], negatives[:, -1], rows).sum()
            total = total + self.config.distill * self.places * taught
        return total, real.sum()

    def distillation(self, hidden: Tensor, negatives: Tensor, rows: Tensor) -> Tensor:
        """[W] the sum over k.

        Args:
            hidden: [W, D] what is known after the last place.
            negatives: [W] a title that is none of the user's.
            rows: [W] numbers of the windows in the training split.
        """
        titles, distances = self.teacher_titles[rows], self.teacher_distances[rows]
        scores = hidden @ self.items.T
        own = scores.detach().topk(min(titles.shape[1], scores.shape[1]), dim=1).indices
        agreed = (titles[:, :, None] == own[:, None, :]).any(2)
        weights = teacher_weights(distances.to(scores.dtype), agreed, self.config)
        terms = bce_one_negative(scores.gather(1, titles), scores.gather(1, negatives[:, None]))
        if self.robust.alpha > 0:
            robust = [self.robust_term(scores, title) for title in titles.unbind(1)]
            terms = terms + self.robust.alpha * torch.stack(robust, dim=1)
        return (weights * terms).sum(1)
