"""Lists of tokens in two arrays behave as the lists do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearray.errors import DataError
from bearray.ragged import TokenLists

lists_of_tokens = st.lists(st.lists(st.integers(-1, 2**40), max_size=5), max_size=8)


@given(lists_of_tokens, lists_of_tokens, st.data())
def test_as_lists(lists: list[list[int]], more: list[list[int]], data: st.DataObject) -> None:
    ragged = TokenLists.of(lists)
    assert (list(ragged), len(ragged)) == (lists, len(lists))
    assert [ragged[i] for i in range(-len(lists), len(lists))] == lists + lists
    assert ragged[1:4] == lists[1:4]
    assert ragged.lengths.tolist() == [len(x) for x in lists]
    assert list(TokenLists.of(iter(lists))) == lists
    assert list(TokenLists.joined([ragged, TokenLists.of(more)])) == lists + more
    if lists:
        rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=6))
        assert list(ragged.take(np.array(rows, dtype=int))) == [lists[i] for i in rows]
        assert ragged.index(lists[-1]) == lists.index(lists[-1])


def test_of_is_the_same_object() -> None:
    ragged = TokenLists.of([[1], [2, 3]])
    assert TokenLists.of(ragged) is ragged
    assert repr(ragged) == "TokenLists(2 lists, 3 tokens)"
    assert ragged.tokens.dtype == np.int32


def test_no_list_there() -> None:
    with pytest.raises(IndexError, match="list 2 of 2"):
        TokenLists.of([[1], [2]])[2]
    assert list(TokenLists.joined([])) == []


@pytest.mark.parametrize("starts", [[], [1, 2], [0, 1], [0, 3, 2]])
def test_starts_that_do_not_fit(starts: list[int]) -> None:
    with pytest.raises(DataError, match="starts must ascend from 0 to the number of tokens, 2"):
        TokenLists(np.array([7, 7]), np.array(starts, dtype=int))
