"""The stand-in: built once, the same each time, from the training split alone, better than counting words."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import bearray.backbones.tiny as tiny
from bearray.backbones import resolve_base
from bearray.backbones.bpe import train_tokenizer
from bearray.backbones.load import is_stand_in, load_model, load_tokenizer
from bearray.backbones.presets import STAND_IN_CARD
from bearray.backbones.pretrain import BaseSize, pack, steps_for, unigram_entropy
from bearray.commands.base_model import build
from bearray.data import Dataset, open_dataset
from bearray.errors import ModelError, StorageError
from tests.backbones.conftest import MICRO, write_data


def build_micro(dataset: Dataset, cache: Path, size: BaseSize = MICRO, **options) -> Path:
    return tiny.build_base_model(dataset, size, cache_dir=cache, progress=False, **options)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_the_same_each_time_and_another_with_another_seed(
    awkward_data: Dataset, micro_folder: Path, tmp_path: Path
):
    again = build_micro(awkward_data, tmp_path)
    assert again.name == micro_folder.name and weights(again) == weights(micro_folder)
    assert (again / "tokenizer.json").read_bytes() == (micro_folder / "tokenizer.json").read_bytes()
    other = build_micro(awkward_data, tmp_path, seed=1)
    assert other.name != again.name and weights(other) != weights(again)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]  # nothing half written is left


def test_a_hit_in_the_cache_does_no_work(awkward_data: Dataset, micro_folder: Path, monkeypatch) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(tiny, "_build", fail)
    assert build_micro(awkward_data, micro_folder.parent) == micro_folder
    with pytest.raises(AssertionError, match="built again"):
        build_micro(awkward_data, micro_folder.parent, seed=7)
    with pytest.raises(AssertionError, match="built again"):
        build_micro(awkward_data, micro_folder.parent, replace(MICRO, max_steps=9))


def test_steps_can_be_asked_for(awkward_data: Dataset, micro_folder: Path, tmp_path: Path) -> None:
    """Also more than the size's own epochs would give."""
    longer = build_micro(awkward_data, tmp_path, steps=11)
    assert json.loads((longer / STAND_IN_CARD).read_text())["steps"] == 11
    assert longer.name != micro_folder.name
    with pytest.raises(ModelError, match="steps is 0"):
        build_micro(awkward_data, tmp_path, steps=0)


def test_a_folder_without_its_card_is_built_again(awkward_data: Dataset, tmp_path: Path) -> None:
    folder = build_micro(awkward_data, tmp_path)
    wanted = weights(folder)
    (folder / STAND_IN_CARD).unlink()
    (folder / "model.safetensors").write_bytes(b"half")
    assert weights(build_micro(awkward_data, tmp_path)) == wanted


def test_concurrent_builders_build_once(awkward_data: Dataset, tmp_path: Path, monkeypatch) -> None:
    built, real = [], tiny._build
    monkeypatch.setattr(tiny, "_build", lambda *args: (built.append(1), real(*args)))
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(build_micro(awkward_data, tmp_path))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1 and len(set(found)) == 1 and len(found) == 3
    assert is_stand_in(found[0])


def test_validation_and_test_splits_do_not_matter(awkward_data, micro_folder, tmp_path) -> None:
    other = open_dataset(write_data(tmp_path / "books", valid_history=[9, 8, 7]))
    assert other.content_hash != awkward_data.content_hash
    assert build_micro(other, micro_folder.parent) == micro_folder


def test_no_text_from_valid_or_test_is_learnt(awkward_data, tmp_path, monkeypatch) -> None:
    texts: list[str] = []

    def spy(corpus_texts, vocab_size):
        texts.extend(corpus_texts)
        return train_tokenizer(corpus_texts, vocab_size)

    real_blocks, blocks = tiny._text_blocks, []

    def spy_blocks(corpus, template, tokenizer, size, rng):
        blocks.append((tokenizer, real_blocks(corpus, template, tokenizer, size, rng)))
        return blocks[-1][1]

    monkeypatch.setattr(tiny, "train_tokenizer", spy)
    monkeypatch.setattr(tiny, "_text_blocks", spy_blocks)
    build_micro(awkward_data, tmp_path)
    tokenizer, rows = blocks[0]
    learnt = tokenizer.decode(rows[:, :-1].flatten().tolist())
    for text in (learnt, *texts):
        assert "zebrafish" not in text and "quokka" not in text
    assert "Harry & the Stone" in learnt and any("Harry & the Stone" in text for text in texts)


def test_the_card_tells_what_it_is(micro_folder: Path) -> None:
    card = json.loads((micro_folder / STAND_IN_CARD).read_text())
    assert card["kind"] == "local stand-in for a pre-trained model"
    assert card["seed"] == 0 and card["size"]["name"] == "micro" and card["steps"] == 8
    model = load_model(str(micro_folder), device="cpu")
    assert card["parameters"] == sum(p.numel() for p in model.parameters())
    assert card["vocabulary"] == len(load_tokenizer(str(micro_folder)))


def test_it_learns(demo_dir: Path, tmp_path: Path) -> None:
    """Well below the entropy of the tokens' frequencies."""
    size = replace(MICRO, vocab_size=600, context=128, batch_blocks=4, max_steps=100)
    card = json.loads((build_micro(open_dataset(demo_dir), tmp_path, size) / STAND_IN_CARD).read_text())
    assert card["loss_nats"]["last"] < 0.75 * card["unigram_entropy_nats"]
    assert card["loss_nats"]["first_step"] > card["unigram_entropy_nats"]


def test_out_is_a_copy_and_nothing_else_is_overwritten(
    awkward_data: Dataset, micro_folder: Path, tmp_path: Path
):
    cache, out = micro_folder.parent, tmp_path / "sub" / "mine"
    assert build_micro(awkward_data, cache, out=out) == out
    assert weights(out) == weights(micro_folder)
    assert build_micro(awkward_data, cache, out=out) == out
    with pytest.raises(StorageError, match="not this base model"):
        build_micro(awkward_data, cache, out=tmp_path)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(StorageError, match="cannot be written"):
        build_micro(awkward_data, file / "cache")


def test_the_command_and_local_names_find_the_same_folder(
    awkward_data: Dataset, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("BEARRAY_CACHE", str(tmp_path))
    monkeypatch.setitem(tiny.SIZES, "tiny", replace(MICRO, name="tiny"))
    build(data_dir=Path(awkward_data.path))
    printed = capsys.readouterr()
    assert printed.out.strip() == resolve_base("local:tiny", awkward_data)
    assert "step 8 of 8" in printed.err
    with pytest.raises(ModelError, match="sizes are tiny, small, medium"):
        tiny.build_base_model(awkward_data, "large")


def test_default_cache_dir(monkeypatch) -> None:
    monkeypatch.delenv("BEARRAY_CACHE", raising=False)
    assert tiny.default_cache_dir() == Path(os.path.expanduser("~/.cache/bearray/base-models"))


def test_packing_makes_each_token_a_target_once() -> None:
    documents = [[5, 6, 7], [8], [9, 10, 11, 12]]
    rows = pack(documents, 4, bos=0, eos=1)
    stream = [0, 5, 6, 7, 1, 0, 8, 1, 0, 9, 10, 11, 12, 1]
    assert rows[:, 1:].flatten().tolist() == stream[1:13]
    assert rows[:, :-1].flatten().tolist() == stream[:12]
    assert pack([[5]], 8, bos=0, eos=1).shape == (1, 9)


def test_unigram_entropy() -> None:
    assert unigram_entropy(np.array([[1, 2], [3, 4]])) == pytest.approx(np.log(4))
    assert steps_for(10, replace(MICRO, epochs=2.0, max_steps=100)) == 10
    assert steps_for(10, replace(MICRO, epochs=2.0, max_steps=7)) == 7


def test_the_tokenizer_is_like_llama_3s() -> None:
    tokenizer = train_tokenizer(['"Harry Potter"\n'] * 5, 400)
    assert tokenizer.pad_token_id is None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    text = 'any "text" – 日本 &amp; 🎉\n \n12345'
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert max(len(piece) for piece in tokenizer.tokenize("1234567")) <= 3


@pytest.mark.parametrize("name", list(tiny.SIZES))
def test_public_sizes_are_of_the_size_promised(name: str) -> None:
    from bearray.backbones.pretrain import new_model

    size = tiny.SIZES[name]
    with torch.device("meta"):
        model = new_model(size, size.vocab_size, bos=0, eos=1, seed=0)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    low, high = {"tiny": (0.8, 2), "small": (5, 10), "medium": (25, 40)}[name]
    assert low < millions < high
