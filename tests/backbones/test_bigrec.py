"""Prompts and answers as tokens: what is added, what is cut, and what titles cannot break."""

from __future__ import annotations

from pathlib import Path

import pytest

from bearray.backbones.bigrec import BigRec
from bearray.backbones.bpe import train_tokenizer
from bearray.backbones.load import load_tokenizer
from bearray.data import clean_title
from bearray.data.prompts import DOMAINS, render_prompt
from bearray.errors import ConfigError, ModelError
from tests.backbones.conftest import TITLES

BOOK = DOMAINS["book"]


@pytest.fixture(scope="module")
def tokenizer(micro_folder: Path):
    return load_tokenizer(str(micro_folder))


@pytest.mark.parametrize("title", [clean_title(t) for t in TITLES.values()])
def test_text_survives_and_answers_end_without_eos(tokenizer, title: str) -> None:
    encoder = BigRec(tokenizer, BOOK)
    [answer] = encoder.encode_answers([title])
    assert tokenizer.decode(answer) == f'"{title}"'
    assert encoder.eos_token_id not in answer  # not even where the title spells it out
    assert tokenizer.bos_token_id not in answer
    [prompt] = encoder.encode_prompts([[title, "Harry"]])
    assert prompt[0] == tokenizer.bos_token_id
    assert tokenizer.decode(prompt[1:]) == render_prompt(BOOK, [title, "Harry"])
    assert prompt.count(tokenizer.bos_token_id) == 1 and encoder.eos_token_id not in prompt


def test_a_batch_equals_its_parts(tokenizer) -> None:
    encoder = BigRec(tokenizer, BOOK, max_prompt_tokens=300)
    histories = [["Harry"], ["Harry", "zebra " * 20], ["A", "B", "C"] * 40]
    assert encoder.encode_prompts(histories) == [encoder.encode_prompts([h])[0] for h in histories]
    assert encoder.encode_prompts([]) == [] and encoder.encode_answers([]) == []


def test_the_opening_quote_can_be_part_of_a_word() -> None:
    """Hence the trie's root can have many children, and nothing may rely on the first token being a quote."""
    tokenizer = train_tokenizer(['"Harry"\n', '"Potter"\n'] * 5, 400)
    answers = BigRec(tokenizer, BOOK).encode_answers(["Harry", "Potter"])
    assert [tokenizer.decode(answer[:1]) for answer in answers] == ['"Harry', '"Potter']


def test_long_prompts_lose_their_oldest_titles(tokenizer) -> None:
    titles = [f"title number {i}" for i in range(10)]
    limit = len(BigRec(tokenizer, BOOK).encode_prompts([titles[6:]])[0])
    encoder = BigRec(tokenizer, BOOK, max_prompt_tokens=limit)
    cut, short = encoder.encode_prompts([titles, titles[-1:]])
    assert tokenizer.decode(cut[1:]) == render_prompt(BOOK, titles[6:])
    assert tokenizer.decode(short[1:]) == render_prompt(BOOK, titles[-1:])
    assert encoder.cut_prompts == 1


def test_one_title_that_is_too_long_keeps_its_end(tokenizer) -> None:
    title = " ".join(f"word{i}日" for i in range(300))
    encoder = BigRec(tokenizer, BOOK, max_prompt_tokens=200)
    [prompt] = encoder.encode_prompts([["old", title]])
    assert 190 <= len(prompt) <= 200
    text = tokenizer.decode(prompt[1:])
    before, after = render_prompt(BOOK, ["|"]).split("|")
    assert text.startswith(before) and text.endswith("word299日" + after)
    assert encoder.cut_prompts == 1


def test_no_room_for_the_template(tokenizer) -> None:
    with pytest.raises(ConfigError, match="max_prompt_tokens is 33; the template alone has"):
        BigRec(tokenizer, BOOK, max_prompt_tokens=33)


def test_padding_is_the_end_of_sequence_where_there_is_no_pad_token(tokenizer) -> None:
    assert tokenizer.pad_token_id is None
    assert BigRec(tokenizer, BOOK).pad_token_id == tokenizer.eos_token_id


def test_special_tokens_follow_the_tokenizer(micro_folder: Path) -> None:
    tokenizer = load_tokenizer(str(micro_folder))
    tokenizer._tokenizer.post_processor = None  # has a BOS, but does not use it
    assert BigRec(tokenizer, BOOK).encode_prompts([["Harry"]])[0][0] != tokenizer.bos_token_id
    tokenizer.pad_token = "!"
    assert BigRec(tokenizer, BOOK).pad_token_id == tokenizer.convert_tokens_to_ids("!")
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no end-of-sequence"):
        BigRec(tokenizer, BOOK)
