"""BIGRec: a history as an instruction prompt, the next title as the answer (Bao et al., 2308.08434).

Two departures from the published code, both on purpose. That code adds a `<pad>` token and a row to the
embedding and output matrices, so that every probability has a term for a token that never occurs; here the
end-of-sequence id fills the padding, the attention mask keeps it out of everything, and no matrix changes
its size. And it cuts prompts that are too long on the right, which removes the answer; here the oldest
titles go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bearray.backbones.soft import SoftKind, UserTable
from bearray.data.prompts import (
    PromptTemplate,
    render_answer,
    render_prompt,
    render_prompt_without_history,
)
from bearray.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


@dataclass
class Asked:
    """A prompt to be written."""

    history: tuple[str, ...]
    """The whole history, oldest first."""
    kept: list[tuple[str, str]]
    """The titles that the prompt has room for: as they are written, which may be without a beginning, and as
    the history has them."""


class BigRec:
    """Prompts and answers as token ids; the base of the backbones whose prompts also hold vectors.

    Prompt and answer are tokenised apart, so no token spans their border and an answer has the same tokens
    after every prompt; the trie relies on that. Text that looks like a special token inside a title stays
    text.

    Args:
        tokenizer: of the base model; a fast one tokenises batches in parallel.
        template: the data's wording.
        max_prompt_tokens: longest prompt, in tokens, with BOS (None: no limit). A longer one loses its
            oldest titles until it fits, never the instruction or the end. If the newest title alone is too
            long, it loses its first characters.

    Raises:
        ModelError: the tokenizer has no end-of-sequence token.
        ConfigError: `max_prompt_tokens` has no room for the template itself.
    """

    name: ClassVar[str] = "bigrec"
    source: ClassVar[str] = "Bao et al., TORS 2025, arXiv 2308.08434"
    soft_kinds: ClassVar[tuple[SoftKind, ...]] = ()
    curriculum: ClassVar[bool] = False

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: PromptTemplate,
        *,
        max_prompt_tokens: int | None = None,
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise ModelError(
                "the base model's tokenizer has no end-of-sequence token; a title could never end"
            )
        self.tokenizer = tokenizer
        self.template = template
        self.max_prompt_tokens = max_prompt_tokens
        self.cut_prompts = 0
        """Prompts that were shortened so far."""
        self.eos_token_id: int = int(tokenizer.eos_token_id)
        pad = tokenizer.pad_token_id
        self.pad_token_id: int = self.eos_token_id if pad is None else int(pad)
        """Fills the padding; many Llama tokenizers have no pad token, then it is the end-of-sequence id."""
        self._bos = _default_bos(tokenizer)
        self.users = UserTable()
        """The histories that soft tokens of kind "user" stand for."""
        self._title_id: dict[str, int] = {}
        if max_prompt_tokens is not None:
            empty = len(self._encode([Asked(("",), [("", "")])])[0])
            if empty > max_prompt_tokens:
                raise ConfigError(
                    f"model.max_prompt_tokens is {max_prompt_tokens}; the template alone has {empty} tokens"
                )

    def know(self, titles: Sequence[str]) -> None:
        """Tell it the catalogue: its titles in the order of their title ids, before any prompt is written."""
        self._title_id = {title: number for number, title in enumerate(titles)}

    @property
    def num_titles(self) -> int:
        """Titles of the catalogue; 0 before `know`."""
        return len(self._title_id)

    def projectors(self, widths: Mapping[SoftKind, int], hidden: int) -> dict[SoftKind, nn.Module]:
        """New projectors, from vectors of the given widths to the language model's embeddings."""
        return {}

    def passing(self) -> AbstractContextManager[None]:
        """Prompts written inside are not read after it, so what they refer to may be forgotten."""
        return self.users.passing()

    @property
    def bos_tokens(self) -> list[int]:
        """What every prompt starts with: BOS, or nothing where the tokenizer does not use it."""
        return list(self._bos)

    def encode_prompts(self, histories: Sequence[Sequence[str]]) -> list[list[int]]:
        """Histories (cleaned titles, oldest first) as prompt tokens, with BOS where the tokenizer adds it."""
        asked = [Asked(tuple(titles), [(t, t) for t in titles]) for titles in histories]
        prompts = self._encode(asked)
        if self.max_prompt_tokens is None:
            return prompts
        long = [i for i, tokens in enumerate(prompts) if len(tokens) > self.max_prompt_tokens]
        self.cut_prompts += len(long)
        while long:  # at most one round per title; all prompts of a round are tokenised together
            for i in long:
                if len(asked[i].kept) > 1:
                    del asked[i].kept[0]
                else:
                    self._shorten(asked[i])
            for i, tokens in zip(long, self._encode([asked[i] for i in long]), strict=True):
                prompts[i] = tokens
            long = [i for i in long if len(prompts[i]) > self.max_prompt_tokens]
        return prompts

    def encode_without_history(self) -> list[int]:
        """The prompt that names no history, the same for all users."""
        return self._bos + self._tokenize([render_prompt_without_history(self.template)])[0]

    def encode_answers(self, titles: Sequence[str]) -> list[list[int]]:
        """Titles in quotes as answer tokens, without any special token: the trie's sequences."""
        return self._tokenize([render_answer(title) for title in titles])

    def _encode(self, asked: Sequence[Asked]) -> list[list[int]]:
        texts = [render_prompt(self.template, [text for text, _ in a.kept]) for a in asked]
        return [self._bos + tokens for tokens in self._tokenize(texts)]

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        # split_special_tokens: a title such as "<|end_of_text|>" is text and must not end the sequence.
        # verbose: the tokenizer would warn about its own length limit, ours is max_prompt_tokens.
        encoded = self.tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )
        return [list(ids) for ids in encoded["input_ids"]]

    def _shorten(self, asked: Asked) -> None:
        """Leave the longest end of its title whose prompt fits (bisection; the empty title is known to
        fit)."""
        assert self.max_prompt_tokens is not None
        [(text, title)] = asked.kept
        low, high = 0, len(text)  # number of last characters kept: `low` fits, `high` does not
        while high - low > 1:
            middle = (low + high) // 2
            trial = Asked(asked.history, [(text[len(text) - middle :], title)])
            fits = len(self._encode([trial])[0]) <= self.max_prompt_tokens
            low, high = (middle, high) if fits else (low, middle)
        asked.kept = [(text[len(text) - low :], title)]


def _default_bos(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """[BOS] if the tokenizer starts a text with it by default, else []: some have one and never use it."""
    bos = tokenizer.bos_token_id
    first = tokenizer("a", add_special_tokens=True)["input_ids"][:1]
    return [int(bos)] if bos is not None and list(first) == [bos] else []
