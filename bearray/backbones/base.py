"""What a backbone is: how a history becomes a prompt, and which of the prompt's places hold vectors.

A prompt is a list of numbers. Most are tokens; those of `bearray.backbones.soft.FIRST` and above are soft
tokens, whose input embedding is a projected vector of a text-free model. Only the model's input embedding
knows the difference, so batches, objectives, decoders and evaluation are the same for all backbones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from bearray.backbones.soft import SoftKind, UserTable
    from bearray.data.prompts import PromptTemplate


class Backbone(Protocol):
    """Writes prompts and answers, and says what a run trains beside the language model.

    Its class takes (tokenizer, template, max_prompt_tokens=...), and is entered in
    `bearray.backbones.registry`.
    """

    name: ClassVar[str]
    """`model.backbone`."""
    source: ClassVar[str]
    """Where it was published."""
    soft_kinds: ClassVar[tuple[SoftKind, ...]]
    """Kinds of soft tokens in its prompts; of each kind a projector is trained."""
    curriculum: ClassVar[bool]
    """Training begins with soft tokens left blank (`hybrid_step`)."""
    tokenizer: PreTrainedTokenizerBase
    template: PromptTemplate
    max_prompt_tokens: int | None
    eos_token_id: int
    pad_token_id: int
    users: UserTable
    """The histories behind the soft tokens of kind "user" in the prompts written so far."""

    @property
    def bos_tokens(self) -> list[int]:
        """What text starts with: BOS, or nothing where the tokenizer does not use it."""

    @property
    def num_titles(self) -> int:
        """Titles of the catalogue; 0 before `know`."""

    def know(self, titles: Sequence[str]) -> None:
        """Tell it the catalogue: its titles in the order of their title ids, before any prompt is written."""

    def encode_prompts(self, histories: Sequence[Sequence[str]]) -> list[list[int]]:
        """Histories (cleaned titles, oldest first) as prompts."""

    def encode_without_history(self) -> list[int]:
        """The prompt that names no history, the same for all users."""

    def encode_answers(self, titles: Sequence[str]) -> list[list[int]]:
        """Titles as answer tokens; they must not depend on the prompt, because the trie is made of them."""

    def projectors(self, widths: Mapping[SoftKind, int], hidden: int) -> dict[SoftKind, nn.Module]:
        """New projectors, from vectors of the given widths to the language model's embeddings."""

    def passing(self) -> AbstractContextManager[None]:
        """Prompts written inside are not read after it, so what they refer to may be forgotten."""
