"""A-LLMRec: a user's vector at the start of the prompt and an aligned vector behind each title.

    x(user u) = W2 leaky_relu(LN(W1 u))          u: SASRec's last state after the history, frozen
    x(item i) = W4 gelu(LN(W3 f(e_i)))           f(e_i): the item's vector of stage 1, frozen

Kim et al., KDD 2024, arXiv 2404.11343. Stage 1 (`bearray.backbones.alignment`, `bearray.vectors`) brings an
item's vector from SASRec and the vector of its title's text together; stage 2 is the run itself, which trains
the two projectors. As published the language model stays frozen (`model.lora_r` 0); with a rank above 0 its
adapter is trained beside them.

As in the setting of arXiv 2601.22925 there is no list of candidates: the answer is decoded over the
catalogue's trie. Further departures: BIGRec's wording; text vectors are the base model's own and frozen,
where the published code fine-tunes an SBERT (`model.text_encoder` takes a folder or hub id of one, frozen,
too); texts are titles, without descriptions; SASRec knows titles and not items and has the sizes of
`SASRecConfig` (published: 50-d, dropout 0.5, 50 places).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from bearray.backbones.bigrec import Asked
from bearray.backbones.pieces import PiecewisePrompts
from bearray.backbones.soft import SoftKind, soft_token


class ALLMRec(PiecewisePrompts):
    """Prompts that begin with the user's vector, before BOS, and have an item's vector behind each title.

    Titles that the catalogue lacks have none, and are left out of the user's history; of a user without a
    known title there is no vector. The vector is of the whole history, also of titles that are cut from a
    long prompt.
    """

    name: ClassVar[str] = "allmrec"
    source: ClassVar[str] = "Kim et al., KDD 2024, arXiv 2404.11343"
    soft_kinds: ClassVar[tuple[SoftKind, ...]] = ("user", "item")

    def projectors(self, widths: Mapping[SoftKind, int], hidden: int) -> dict[SoftKind, nn.Module]:
        def between(kind: SoftKind, activation: nn.Module) -> nn.Module:
            first, second = nn.Linear(widths[kind], hidden), nn.Linear(hidden, hidden)
            return nn.Sequential(first, nn.LayerNorm(hidden), activation, second)

        return {"user": between("user", nn.LeakyReLU()), "item": between("item", nn.GELU())}

    def _lead(self, asked: Asked) -> list[int]:
        known = [self._title_id[title] for title in asked.history if title in self._title_id]
        return [soft_token("user", self.users.number(known)), *self._bos] if known else self._bos
