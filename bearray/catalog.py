"""The catalogue as the model sees it: distinct titles, their answer tokens, and the trie over them.

A recommendation is a generated title, so two items with the same title cannot be told apart, and neither
can two titles that the tokenizer writes alike. Both cases share one `title_id`: a hit on the title is a hit
on each of its items, which is how the published code counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from bearray.data import clean_title
from bearray.errors import DataError
from bearray.ragged import TokenLists
from bearray.trie import TokenTrie

if TYPE_CHECKING:
    import pandas as pd

EncodeAnswers = Callable[[list[str]], list[list[int]]]
"""Titles to answer tokens without end of sequence, each title by itself, e.g. `BigRec.encode_answers`."""

_CHUNK = 50_000
"""Titles tokenised at a time: a tokenizer's own records of a title take far more room than its tokens."""


@dataclass(frozen=True, eq=False)
class EncodedTitles:
    """What a tokenizer makes of different texts; texts with equal tokens are one title."""

    title_of_text: np.ndarray
    """[texts] int32, title id of each text: numbered by first occurrence."""
    tokens: TokenLists
    """Tokens of each title."""
    trie: TokenTrie
    """Prefix tree over `tokens`."""


@dataclass(frozen=True, eq=False)
class Catalog:
    """Distinct titles and where they lead; built by `build_catalog`.

    `titles`, `tokens`, `items_of_title` and the trie's sequences share one index, the title id. Title ids
    follow the lowest item id that has the title, so they do not depend on the order of the rows.
    """

    titles: list[str]
    """Cleaned titles, all different."""
    tokens: Sequence[list[int]]
    """Answer tokens of each title (with its quotes, without end of sequence), all different."""
    trie: TokenTrie
    """Prefix tree over `tokens`; the sequence index at a terminal node is the title id."""
    title_of_item: dict[int, int]
    """Item id to title id."""
    items_of_title: list[list[int]]
    """Title id to item ids, ascending."""

    def __len__(self) -> int:
        """The number of distinct titles."""
        return len(self.titles)

    def item_of_title(self, title_id: int) -> int:
        """The item that stands for a title in a prediction: the lowest item id among those that share it."""
        return self.items_of_title[title_id][0]

    @property
    def items_sharing_a_title(self) -> int:
        """How many items have a title that another item has, too (they can only be recommended together)."""
        return sum(len(items) for items in self.items_of_title if len(items) > 1)


def encode_titles(texts: list[str], encode_answers: EncodeAnswers) -> EncodedTitles:
    """Tokenise different texts, merge those with equal tokens, and build the trie.

    Raises:
        DataError: a text without tokens; the message has it.
    """
    chunks = range(0, len(texts), _CHUNK)
    lists = TokenLists.joined([TokenLists.of(encode_answers(texts[i : i + _CHUNK])) for i in chunks])
    if not lists.lengths.all():
        raise DataError(
            f"the tokenizer makes no tokens of the title {texts[int(np.argmin(lists.lengths))]!r}"
        )
    first: dict[bytes, int] = {}
    title_of_text = np.fromiter(
        (
            first.setdefault(lists.tokens[low:high].tobytes(), len(first))
            for low, high in pairwise(lists.starts.tolist())
        ),
        dtype=np.int32,
        count=len(lists),
    )
    if len(first) < len(texts):
        lists = lists.take(np.unique(title_of_text, return_index=True)[1])
    return EncodedTitles(title_of_text, lists, TokenTrie.from_sequences(lists))


def build_catalog(
    items: pd.DataFrame,
    encode_answers: EncodeAnswers,
    *,
    unescape: bool = True,
    encode: Callable[[list[str], EncodeAnswers], EncodedTitles] = encode_titles,
) -> Catalog:
    """Clean the titles, merge those that are equal as text or as tokens, and build the trie.

    Args:
        items: columns `item_id` and `title`, as `open_dataset` returns them: a title in every row.
        encode_answers: titles to answer tokens without end of sequence, e.g. `BigRec.encode_answers`.
        unescape: turn HTML entities into characters, the same choice as in the prompts.
        encode: how cleaned titles become tokens; `catalog_cache.load_or_encode` remembers them.

    Raises:
        DataError: a column is missing, an item id occurs twice, no item has a title, or some item has none.
    """
    for column in ("item_id", "title"):
        if column not in items.columns:
            raise DataError(f"items have no column {column!r}; they need item_id and title")
    ordered = items.sort_values("item_id", kind="stable")
    item_ids = [int(i) for i in ordered["item_id"]]
    present = ordered["title"].notna().tolist()
    cleaned = [
        clean_title(str(title), unescape=unescape) if has_title else ""
        for title, has_title in zip(ordered["title"], present, strict=True)
    ]
    _check(item_ids, cleaned)

    texts = list(dict.fromkeys(cleaned))  # in order of their lowest item id
    encoded = encode(texts, encode_answers)
    title_ids = dict(zip(texts, encoded.title_of_text.tolist(), strict=True))
    titles: list[str] = []
    for text, title_id in title_ids.items():
        if title_id == len(titles):  # else its tokens are those of an earlier text
            titles.append(text)

    title_of_item = {item: title_ids[title] for item, title in zip(item_ids, cleaned, strict=True)}
    items_of_title: list[list[int]] = [[] for _ in titles]
    for item, title_id in title_of_item.items():
        items_of_title[title_id].append(item)
    return Catalog(titles, encoded.tokens, encoded.trie, title_of_item, items_of_title)


def _check(item_ids: list[int], cleaned: list[str]) -> None:
    if not any(cleaned):
        raise DataError(
            f"none of the {len(item_ids)} items has a title; titles are what the model recommends"
        )
    seen: set[int] = set()
    for item, title in zip(item_ids, cleaned, strict=True):
        if item in seen:
            raise DataError(f"item_id {item} occurs twice in the items; it must be unique")
        if not title:
            raise DataError(f"item_id {item} has no title; open_dataset leaves such items out")
        seen.add(item)
