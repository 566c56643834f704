"""A saved trie comes back equal, mapped and checked; whatever else lies in its place is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from bearray.array_files import read_arrays, write_arrays
from bearray.errors import BearrayError, DataError, MissingFileError, StorageError
from bearray.trie import TokenTrie

LISTS = [[5, 1], [3], [5, 0, 2], [5, 0], [3]]


def same(a: TokenTrie, b: TokenTrie) -> bool:
    equal = all(torch.equal(x, b.arrays()[name]) for name, x in a.arrays().items())
    return equal and a.facts() == b.facts()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "a.trie"
    TokenTrie.from_sequences(LISTS).save(path)
    return path


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=6), min_size=1, max_size=20))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, lists: list[list[int]]) -> None:
    path = tmp_path_factory.mktemp("trie") / "x"
    trie = TokenTrie.from_sequences(lists)
    trie.save(path)
    loaded = TokenTrie.load(path)
    assert same(trie, loaded)
    assert loaded.path_nodes(lists) == trie.path_nodes(lists)
    loaded.save(path)  # over the file that it is mapped from
    assert same(trie, loaded)
    assert same(trie, TokenTrie.load(path))
    assert os.listdir(path.parent) == ["x"]


def test_equal_tries_make_equal_files(saved: Path) -> None:
    content = saved.read_bytes()
    for _ in range(3):
        TokenTrie.from_sequences(LISTS).save(saved)
        assert saved.read_bytes() == content


def test_others_may_read_what_the_umask_lets_them(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    assert saved.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_load_onto_a_device(saved: Path) -> None:
    assert TokenTrie.load(saved, device="meta").device.type == "meta"


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux says what is mapped")
def test_pages_are_mapped_and_loaded_when_they_are_used(tmp_path: Path) -> None:
    path = tmp_path / "big.trie"
    rng = np.random.default_rng(0)
    TokenTrie.from_sequences(rng.integers(0, 50_000, (40_000, 12)).tolist()).save(path)
    code = f"""
        import re, bearray.trie
        def resident(path):  # KB of the file in this process's memory, and how much of that is its own
            text = open("/proc/self/smaps").read()
            part = [p for p in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", text) if path in p]
            number = lambda name: sum(int(re.search(name + r":\\s+(\\d+)", p)[1]) for p in part)
            return [number("Size"), number("Rss"), number("Anonymous")]
        trie = bearray.trie.TokenTrie.load({str(path)!r})
        seen = [resident({str(path)!r})]
        int(trie.parent.sum()) + int(trie.forced_end.sum())
        print(seen + [resident({str(path)!r})])
    """
    lines = [line.removeprefix("        ") for line in code.splitlines()]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True
    )
    before, after = json.loads(done.stdout)
    assert before[0] * 1024 >= path.stat().st_size > 10 * 2**20  # all of it has an address
    assert before[1] < before[0] / 4  # and is not in memory
    assert after[1] > before[1] + before[0] / 4  # until it is looked at
    assert (before[2], after[2]) == (0, 0)  # shared with the page cache, not copied


def test_what_is_written_into_a_loaded_trie_does_not_reach_the_file(saved: Path) -> None:
    content = saved.read_bytes()
    TokenTrie.load(saved).parent.fill_(7)
    assert saved.read_bytes() == content


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"nothing\.trie does not exist"):
        TokenTrie.load(tmp_path / "nothing.trie")


def test_a_file_cut_short_anywhere_is_named(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in range(0, len(whole), 7):
        saved.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a\.trie is damaged"):
            TokenTrie.load(saved)


def test_every_changed_byte_of_the_arrays_is_noticed(saved: Path) -> None:
    whole = saved.read_bytes()
    arrays = 8 + int.from_bytes(whole[:8], "little")
    for place in range(arrays, len(whole)):
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        with pytest.raises(DataError, match=r"a\.trie is damaged: array '\w+' does not match"):
            TokenTrie.load(saved)


def test_a_changed_header_is_an_error_or_harmless(saved: Path) -> None:
    whole, trie = saved.read_bytes(), TokenTrie.from_sequences(LISTS)
    for place in range(8 + int.from_bytes(whole[:8], "little")):
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            loaded = TokenTrie.load(saved)
        except BearrayError as error:
            assert str(saved) in str(error)
        else:
            assert all(torch.equal(x, loaded.arrays()[name]) for name, x in trie.arrays().items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged or not a file of a token trie"),
        (b"PK\x03\x04 a pickle, or anything else", "damaged or not a file of a token trie"),
        (b"\x02\0\0\0\0\0\0\0{}", "is not a file of a token trie: its header says None"),
    ],
)
def test_foreign_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        TokenTrie.load(path)
    assert str(path) in str(caught.value)


def test_weights_are_not_a_trie(tmp_path: Path) -> None:
    save_file({"weight": np.zeros(3)}, tmp_path / "w", metadata={"format": "pt"})
    with pytest.raises(DataError, match="is not a file of a token trie"):
        TokenTrie.load(tmp_path / "w")


def test_another_kind_and_another_version_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_arrays(path, {"a": np.arange(3)}, kind="token trie", version=99, facts={})
    with pytest.raises(DataError, match="version 99; this bearray reads version 1"):
        TokenTrie.load(path)
    write_arrays(path, {"a": np.arange(3)}, kind="recipe", version=1, facts={})
    with pytest.raises(DataError, match="its header says 'recipe'"):
        TokenTrie.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parent": None}, "'child_start' is int32 .* must be int32 \\[1\\]"),
        ({"depth": None}, "has no array 'depth'"),
        ({"depth": np.zeros(6, np.float32)}, "'depth' is float32 \\[6\\]; it must be int32 \\[6\\]"),
        ({"child_token": np.zeros(6, np.int32)}, "'child_token' is int32 \\[6\\]; it must be int32 \\[5\\]"),
        ({"parent": np.zeros((6, 1), np.int32)}, "'parent' is int32 \\[6, 1\\]"),
    ],
)
def test_arrays_that_make_no_trie(saved: Path, change: dict[str, np.ndarray | None], message: str) -> None:
    arrays = {name: a for name, a in {**load_file(saved), **change}.items() if a is not None}
    facts = {"num_sequences": 5, "max_depth": 3}
    write_arrays(saved, arrays, kind="token trie", version=1, facts=facts)
    with pytest.raises(DataError, match=message):
        TokenTrie.load(saved)


@pytest.mark.parametrize("facts", [{}, {"num_sequences": 5}, {"num_sequences": 0, "max_depth": 3}])
def test_numbers_that_are_missing(saved: Path, facts: dict[str, int]) -> None:
    write_arrays(saved, load_file(saved), kind="token trie", version=1, facts=facts)
    with pytest.raises(DataError, match="must be a number above 0"):
        TokenTrie.load(saved)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*nowhere"):
        TokenTrie.from_sequences(LISTS).save(tmp_path / "nowhere" / "x")


def test_a_failed_write_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StorageError, match="disk full"):
        TokenTrie.from_sequences([[1]]).save(saved)
    assert same(TokenTrie.load(saved), TokenTrie.from_sequences(LISTS))
    assert os.listdir(saved.parent) == [saved.name]


def test_empty_arrays_and_other_types(tmp_path: Path) -> None:
    arrays = {"none": np.zeros((0, 3), np.float32), "one": np.array(5), "bytes": torch.tensor([1, 2]).byte()}
    write_arrays(tmp_path / "x", arrays, kind="k", version=2, facts={"n": 4})
    loaded, facts = read_arrays(tmp_path / "x", kind="k", version=2)
    assert facts == {"n": 4}
    assert {name: a.tolist() for name, a in loaded.items()} == {"none": [], "one": 5, "bytes": [1, 2]}
