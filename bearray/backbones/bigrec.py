"""BIGRec: a history as an instruction prompt, the next title as the answer (Bao et al., 2308.08434).

Two departures from the published code, both on purpose. That code adds a `<pad>` token and a row to the
embedding and output matrices, so that every probability has a term for a token that never occurs; here the
end-of-sequence id fills the padding, the attention mask keeps it out of everything, and no matrix changes
its size. And it cuts prompts that are too long on the right, which removes the answer; here the oldest
titles go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bearray.data.prompts import (
    PromptTemplate,
    render_answer,
    render_prompt,
    render_prompt_without_history,
)
from bearray.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class BigRec:
    """Prompts and answers as token ids.

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
        if max_prompt_tokens is not None:
            empty = len(self._tokenize([render_prompt(template, [""])])[0]) + len(self._bos)
            if empty > max_prompt_tokens:
                raise ConfigError(
                    f"model.max_prompt_tokens is {max_prompt_tokens}; the template alone has {empty} tokens"
                )

    @property
    def bos_tokens(self) -> list[int]:
        """What every prompt starts with: BOS, or nothing where the tokenizer does not use it."""
        return list(self._bos)

    def encode_prompts(self, histories: Sequence[Sequence[str]]) -> list[list[int]]:
        """Histories (cleaned titles, oldest first) as prompt tokens, with BOS where the tokenizer adds it."""
        kept = [list(titles) for titles in histories]
        prompts = self._encode(kept)
        if self.max_prompt_tokens is None:
            return prompts
        long = [i for i, tokens in enumerate(prompts) if len(tokens) > self.max_prompt_tokens]
        self.cut_prompts += len(long)
        while long:  # at most one round per title; all prompts of a round are tokenised together
            for i in long:
                kept[i] = kept[i][1:] if len(kept[i]) > 1 else [self._shorten(kept[i][0])]
            for i, tokens in zip(long, self._encode([kept[i] for i in long]), strict=True):
                prompts[i] = tokens
            long = [i for i in long if len(prompts[i]) > self.max_prompt_tokens]
        return prompts

    def encode_without_history(self) -> list[int]:
        """The prompt that names no history, the same for all users."""
        return self._bos + self._tokenize([render_prompt_without_history(self.template)])[0]

    def encode_answers(self, titles: Sequence[str]) -> list[list[int]]:
        """Titles in quotes as answer tokens, without any special token: the trie's sequences."""
        return self._tokenize([render_answer(title) for title in titles])

    def _encode(self, histories: Sequence[Sequence[str]]) -> list[list[int]]:
        texts = [render_prompt(self.template, list(titles)) for titles in histories]
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

    def _shorten(self, title: str) -> str:
        """The longest end of a title whose prompt fits (bisection; the empty title is known to fit)."""
        assert self.max_prompt_tokens is not None
        low, high = 0, len(title)  # number of last characters kept: `low` fits, `high` does not
        while high - low > 1:
            middle = (low + high) // 2
            fits = len(self._encode([[title[len(title) - middle :]]])[0]) <= self.max_prompt_tokens
            low, high = (middle, high) if fits else (low, middle)
        return title[len(title) - low :]


def _default_bos(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """[BOS] if the tokenizer starts a text with it by default, else []: some have one and never use it."""
    bos = tokenizer.bos_token_id
    first = tokenizer("a", add_special_tokens=True)["input_ids"][:1]
    return [int(bos)] if bos is not None and list(first) == [bos] else []
