"""A trie made by a stranger: right checksums, wrong numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bearray.array_files import write_arrays
from bearray.errors import DataError
from bearray.trie import TokenTrie
from bearray.trie_checks import trie_fault

SEQUENCES = [[5, 6, 7], [5, 6, 8], [5, 9], [10, 11], [10, 11, 12, 13]]

titles = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=5), min_size=1, max_size=12)


def arrays(trie: TokenTrie) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in trie.arrays().items()}


@settings(deadline=None)
@given(titles)
def test_every_trie_passes(sequences: list[list[int]]) -> None:
    trie = TokenTrie.from_sequences(sequences)
    assert trie_fault(arrays(trie), **trie.facts()) == ""


@given(titles, st.data())
def test_every_other_number_is_found(sequences: list[list[int]], data: st.DataObject) -> None:
    """Any change of one number is a fault, but for those that make another trie: a token in order, or another
    sequence's number at a title's end."""
    trie = TokenTrie.from_sequences(sequences)
    found = arrays(trie)
    name = data.draw(st.sampled_from([n for n in sorted(found) if n not in ("child_token", "terminal")]))
    place = data.draw(st.integers(0, len(found[name]) - 1))
    old = int(found[name][place])
    found[name][place] = data.draw(st.integers(-3, 20).filter(lambda value: value != old))
    assert trie_fault(found, **trie.facts())


@pytest.mark.parametrize(
    ("name", "place", "value", "fault"),
    [
        ("child_start", 1, 10**6, "child_start does not cut"),
        ("parent", 3, 7, "parent and child_start"),
        ("parent", 0, 1, "parent and child_start"),
        ("depth", 5, 9, "depth is not"),
        ("child_token", 0, 2**31 - 1, "not in order"),
        ("child_token", 0, -4, "not in order"),
        ("terminal", 4, 99, "terminal does not name"),
        ("terminal", -1, -1, "a leaf ends no title"),
        ("forced_end", 0, 3, "forced_end is not"),
    ],
)
def test_a_file_with_right_checksums_is_refused(
    tmp_path: Path, name: str, place: int, value: int, fault: str
) -> None:
    trie = TokenTrie.from_sequences(SEQUENCES)
    wrong = arrays(trie)
    wrong[name][place] = value
    file = tmp_path / "trie.safetensors"
    write_arrays(file, wrong, kind="token trie", version=1, facts=trie.facts())
    with pytest.raises(DataError, match=fault):
        TokenTrie.load(file)


@pytest.mark.parametrize(("name", "value"), [("max_depth", 2**31), ("num_sequences", 2**62)])
def test_the_numbers_of_levels_and_titles_are_checked(tmp_path: Path, name: str, value: int) -> None:
    trie = TokenTrie.from_sequences(SEQUENCES)
    file = tmp_path / "trie.safetensors"
    write_arrays(file, trie.arrays(), kind="token trie", version=1, facts={**trie.facts(), name: value})
    with pytest.raises(DataError, match=name):
        TokenTrie.load(file)
