"""A catalogue is tokenised once a machine: the file has a key that follows its content, and can always be
done without."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from bearray import catalog_cache
from bearray.backbones.bpe import train_tokenizer
from bearray.catalog import Catalog, EncodedTitles, build_catalog, encode_titles
from bearray.catalog_cache import cache_key, default_cache_dir, load_or_encode

TITLES = ["A &amp; B", "A & B", "a dog", "a dog and a cat", "The Cat", "the cat", "zebra"]


class Words:
    """Answers of one tokenizer that knows no case; counts what it is asked."""

    def __init__(self, learned_from: tuple[str, ...] = tuple(TITLES), end: str = "") -> None:
        self.tokenizer = train_tokenizer([t.lower() for t in learned_from], 300)
        self.end = end
        self.asked = 0

    def __call__(self, titles: list[str]) -> list[list[int]]:
        self.asked += len(titles)
        encoded = self.tokenizer([t.lower() + self.end for t in titles], add_special_tokens=False)
        return [list(ids) for ids in encoded["input_ids"]]


@pytest.fixture(autouse=True)
def keep_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_cache, "WORTH_KEEPING", 1)


def same(a: EncodedTitles, b: EncodedTitles) -> bool:
    arrays = zip(a.trie.arrays().values(), b.trie.arrays().values(), strict=True)
    return (
        a.title_of_text.tolist() == b.title_of_text.tolist()
        and list(a.tokens) == list(b.tokens)
        and all(torch.equal(x, y) for x, y in arrays)
        and a.trie.facts() == b.trie.facts()
    )


def kept(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.endswith(".safetensors"))


def test_the_second_time_nothing_but_the_probes_is_tokenised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_cache, "_PROBES", 2)
    words = Words()
    expected = encode_titles(TITLES, words)
    folder = tmp_path / "new" / "folder"
    counts = []
    for _ in range(3):
        words.asked = 0
        assert same(load_or_encode(TITLES, words, tokenizer=words.tokenizer, folder=folder), expected)
        counts.append(words.asked)
    assert counts == [3 + len(TITLES), 3, 3]
    assert len(kept(folder)) == 1


def test_a_catalog_from_the_cache_is_the_same(tmp_path: Path) -> None:
    words = Words()
    items = pd.DataFrame({"item_id": range(len(TITLES)), "title": TITLES})
    encode = partial(load_or_encode, tokenizer=words.tokenizer, folder=tmp_path)

    def facts(catalog: Catalog) -> list[Any]:
        return [catalog.titles, list(catalog.tokens), catalog.title_of_item, catalog.items_of_title]

    plain = build_catalog(items, words)
    assert plain.titles == ["A & B", "a dog", "a dog and a cat", "The Cat", "zebra"]
    assert plain.items_of_title == [[0, 1], [2], [3], [4, 5], [6]]
    for _ in range(2):
        assert facts(build_catalog(items, words, encode=encode)) == facts(plain)
    raw = build_catalog(items, words, unescape=False, encode=encode)
    assert raw.titles[:2] == ["A &amp; B", "A & B"]
    assert len(kept(tmp_path)) == 2  # HTML entities left in make other texts, hence another key


def test_the_key_follows_tokenizer_titles_order_and_wording(monkeypatch: pytest.MonkeyPatch) -> None:
    words = Words()

    def key(titles: list[str], encode: Words = words) -> str:
        return cache_key(titles, encode, encode.tokenizer)

    keys = [
        key(TITLES),
        key(TITLES[:-1]),
        key(TITLES[::-1]),
        key([*TITLES[:-2], TITLES[-2] + TITLES[-1][:1], TITLES[-1][1:]]),  # the same characters in all
        key([*TITLES[:-1], "zebrb"]),
        key(TITLES, Words(learned_from=("another text",))),
        key(TITLES, Words(end="!")),
    ]
    assert key(list(TITLES), Words()) == keys[0]
    monkeypatch.setattr(catalog_cache, "_VERSION", 2)
    keys.append(key(TITLES))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "other"])
def test_a_file_that_cannot_be_used_is_made_anew(tmp_path: Path, damage: str) -> None:
    words = Words()
    load = partial(load_or_encode, TITLES, words, tokenizer=words.tokenizer, folder=tmp_path)
    load()
    (path,) = [tmp_path / name for name in kept(tmp_path)]
    whole = path.read_bytes()
    if damage == "other":  # a file that was renamed by hand
        load_or_encode(TITLES[:3], words, tokenizer=words.tokenizer, folder=tmp_path / "b")
        (other,) = kept(tmp_path / "b")
        os.replace(tmp_path / "b" / other, path)
    else:
        content = {"empty": b"", "cut": whole[:-9], "changed": whole[:-1] + bytes([whole[-1] ^ 1])}
        path.write_bytes(content[damage])
    assert same(load(), encode_titles(TITLES, words))
    assert path.read_bytes() == whole


def test_a_place_that_cannot_be_written_costs_only_the_keeping(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    words = Words()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        found = load_or_encode(TITLES, words, tokenizer=words.tokenizer, folder=folder)
        assert same(found, encode_titles(TITLES, words))


def test_a_full_disk_costs_only_the_keeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left")

    words = Words()
    monkeypatch.setattr(os, "replace", fail)
    found = load_or_encode(TITLES, words, tokenizer=words.tokenizer, folder=tmp_path)
    assert same(found, encode_titles(TITLES, words))
    assert kept(tmp_path) == []


def test_few_titles_and_slow_tokenizers_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = Words()
    slow: Any = object()
    assert same(load_or_encode(TITLES, words, tokenizer=slow, folder=tmp_path), encode_titles(TITLES, words))
    monkeypatch.setattr(catalog_cache, "WORTH_KEEPING", len(TITLES) + 1)
    load_or_encode(TITLES, words, tokenizer=words.tokenizer, folder=tmp_path)
    assert os.listdir(tmp_path) == []


def test_two_processes_at_once_tokenise_once(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from bearray import catalog_cache
from bearray.backbones.bpe import train_tokenizer
catalog_cache.WORTH_KEEPING, catalog_cache._PROBES = 1, 1
texts = [f"title {{i % 7}} {{i}}" for i in range(60)]
tokenizer = train_tokenizer(texts, 300)
whole = 0
def encode(titles):
    global whole
    if len(titles) == len(texts):
        whole += 1
        time.sleep(1)
    return tokenizer(titles, add_special_tokens=False)["input_ids"]
folder = Path({str(tmp_path)!r})
(folder / f"ready{{time.time_ns()}}").touch()
while len(list(folder.glob("ready*"))) < 2:
    time.sleep(0.01)
found = catalog_cache.load_or_encode(texts, encode, tokenizer=tokenizer, folder=folder / "cache")
print(whole, len(found.tokens), found.trie.num_sequences)
"""
    command = [sys.executable, "-c", code]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(run.communicate(timeout=60)[0].split() for run in runs)
    assert [run.returncode for run in runs] == [0, 0]
    assert said == [["0", "60", "60"], ["1", "60", "60"]]
    assert len(kept(tmp_path / "cache")) == 1


def test_a_text_without_tokens_is_named() -> None:
    with pytest.raises(ValueError, match="no tokens of the title 'b'"):
        encode_titles(["a", "b"], lambda titles: [[1] if t == "a" else [] for t in titles])


def test_titles_are_tokenised_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bearray.catalog._CHUNK", 3)
    sizes = []

    def encode(titles: list[str]) -> list[list[int]]:
        sizes.append(len(titles))
        return [[len(t), 7] for t in titles]

    encoded = encode_titles(TITLES, encode)
    assert sizes == [3, 3, 1]
    assert encoded.title_of_text.tolist() == [0, 1, 1, 2, 3, 3, 1]
    assert list(encoded.tokens) == [[9, 7], [5, 7], [15, 7], [7, 7]]
    assert encoded.title_of_text.dtype == np.int32


def test_default_cache_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEARRAY_CACHE", "/somewhere")
    assert default_cache_dir() == Path("/somewhere/catalogues")
    monkeypatch.delenv("BEARRAY_CACHE")
    assert default_cache_dir() == Path.home() / ".cache" / "bearray" / "catalogues"


def test_load_task_uses_it(make_run: Any, micro_task: Any, tmp_path: Path, monkeypatch: Any) -> None:
    from bearray.task import load_task

    monkeypatch.setenv("BEARRAY_CACHE", str(tmp_path))
    for _ in range(2):
        task = load_task(make_run())
        assert task.catalog.titles == micro_task.catalog.titles
        assert list(task.catalog.tokens) == list(micro_task.catalog.tokens)
        assert task.examples() == micro_task.examples()
    assert len(kept(tmp_path / "catalogues")) == 1
