"""Titles merge by text and by tokens, and every way of asking for a title gives the same id."""

from __future__ import annotations

import pandas as pd
import pytest

from bearray.catalog import build_catalog
from bearray.errors import DataError


def letters(titles: list[str]) -> list[list[int]]:
    """A tokenizer that does not know case, so that two texts can have the same tokens."""
    return [[ord(c) for c in title.lower()] for title in titles]


def table(**titles: object) -> pd.DataFrame:
    return pd.DataFrame({"item_id": [int(key[1:]) for key in titles], "title": list(titles.values())})


def test_ids_agree_and_do_not_depend_on_row_order() -> None:
    items = table(i7="b", i3="a", i5="abc")
    catalog = build_catalog(items, letters)
    assert catalog.titles == ["a", "abc", "b"]
    assert catalog.title_of_item == {3: 0, 5: 1, 7: 2}
    assert catalog.items_of_title == [[3], [5], [7]]
    assert len(catalog) == 3
    for title_id, tokens in enumerate(catalog.tokens):
        node = catalog.trie.find(tokens)
        assert int(catalog.trie.terminal[node]) == title_id
    assert build_catalog(items.iloc[::-1], letters).titles == catalog.titles


def test_equal_text_and_equal_tokens_share_a_title() -> None:
    catalog = build_catalog(table(i1="Same", i2="other", i3=" Same ", i4="SAME", i9="last"), letters)
    assert catalog.titles == ["Same", "other", "last"]
    assert catalog.items_of_title == [[1, 3, 4], [2], [9]]
    assert catalog.title_of_item == {1: 0, 3: 0, 4: 0, 2: 1, 9: 2}
    assert catalog.item_of_title(0) == 1
    assert catalog.items_sharing_a_title == 3
    assert catalog.trie.num_sequences == 3


def test_entities_follow_the_switch() -> None:
    items = table(i1="A &amp; B", i2="A & B")
    assert build_catalog(items, letters).titles == ["A & B"]
    assert build_catalog(items, letters, unescape=False).titles == ["A &amp; B", "A & B"]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (table(i1=" ", i2=None), "none of the 2 items has a title"),
        (table(i1="a", i2=float("nan")), "item_id 2 has no title"),
        (pd.DataFrame({"item_id": [4, 4], "title": ["a", "b"]}), "item_id 4 occurs twice"),
        (pd.DataFrame({"item_id": [4]}), "no column 'title'"),
        (pd.DataFrame({"item_id": [], "title": []}), "none of the 0 items"),
    ],
)
def test_bad_items(items: pd.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build_catalog(items, letters)
