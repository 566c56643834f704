"""Prompts with soft tokens: where they stand, what is cut, what the catalogue does not hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bearray.backbones.allmrec import ALLMRec
from bearray.backbones.bigrec import BigRec
from bearray.backbones.llara import LLaRA, hybrid_step
from bearray.backbones.load import load_tokenizer
from bearray.backbones.registry import BACKBONES
from bearray.backbones.soft import BLANK, FIRST, soft_token
from bearray.data.prompts import DOMAINS, render_prompt

BOOK = DOMAINS["book"]
TITLES = ["Harry", "Café Ünïcode", 'The "Quoted" One', "Ends,"]
HISTORY = ["Harry", 'The "Quoted" One', "Ends,"]
ITEMS = [soft_token("item", k) for k in (0, 2, 3)]


@pytest.fixture(scope="module")
def tokenizer(micro_folder: Path):
    return load_tokenizer(str(micro_folder))


def written(kind, tokenizer, limit: int | None = None):
    backbone = kind(tokenizer, BOOK, max_prompt_tokens=limit)
    backbone.know(TITLES)
    return backbone


def words(tokenizer, prompt: list[int]) -> str:
    return tokenizer.decode([t for t in prompt if t < FIRST and t != tokenizer.bos_token_id])


def test_the_names_are_those_of_the_setting() -> None:
    from typing import get_args

    from bearray.config import BackboneName

    assert set(BACKBONES) == set(get_args(BackboneName))


@pytest.mark.parametrize("kind", [LLaRA, ALLMRec])
def test_each_title_is_followed_by_its_item_and_the_words_are_bigrecs(kind, tokenizer) -> None:
    backbone = written(kind, tokenizer)
    [prompt] = backbone.encode_prompts([HISTORY])
    assert words(tokenizer, prompt) == render_prompt(BOOK, HISTORY)
    places = [place for place, token in enumerate(prompt) if token in ITEMS]
    assert [prompt[place] for place in places] == ITEMS
    for place, title in zip(places, HISTORY, strict=True):
        assert words(tokenizer, prompt[:place]).endswith(f'"{title}"')
    text = BigRec(tokenizer, BOOK)
    assert backbone.encode_without_history() == text.encode_without_history()
    assert backbone.encode_answers(TITLES) == text.encode_answers(TITLES)
    histories = [HISTORY, TITLES[:1], TITLES]
    alone = [backbone.encode_prompts([h])[0] for h in histories]
    assert backbone.encode_prompts(histories) == alone and backbone.encode_prompts([]) == []


def test_allmrec_begins_with_the_user(tokenizer) -> None:
    backbone = written(ALLMRec, tokenizer)
    first, again, other = backbone.encode_prompts([HISTORY, HISTORY, TITLES])
    assert first == again and first[:2] == [soft_token("user", 0), tokenizer.bos_token_id]
    assert other[0] == soft_token("user", 1)
    assert backbone.users[0] == (0, 2, 3) and backbone.users[1] == (0, 1, 2, 3)
    with backbone.passing():
        assert backbone.encode_prompts([["Ends,"]])[0][0] == soft_token("user", 2)
    assert len(backbone.users) == 2


def test_titles_that_nobody_knows(tokenizer) -> None:
    [llara] = written(LLaRA, tokenizer).encode_prompts([["Harry", "new"]])
    assert [t for t in llara if t >= FIRST] == [ITEMS[0], BLANK]
    backbone = written(ALLMRec, tokenizer)
    some, none = backbone.encode_prompts([["Harry", "new"], ["new"]])
    assert [t for t in some if t >= FIRST] == [soft_token("user", 0), ITEMS[0]]
    assert none[0] == tokenizer.bos_token_id and not any(t >= FIRST for t in none)


@pytest.mark.parametrize("kind", [LLaRA, ALLMRec])
def test_long_prompts_lose_their_oldest_titles_with_their_items(kind, tokenizer) -> None:
    limit = len(written(kind, tokenizer).encode_prompts([HISTORY[1:]])[0])
    backbone = written(kind, tokenizer, limit)
    cut, short = backbone.encode_prompts([HISTORY, HISTORY[1:]])
    assert words(tokenizer, cut) == words(tokenizer, short) and len(cut) == limit
    assert [t for t in cut if t in ITEMS] == ITEMS[1:]
    if kind is ALLMRec:  # the whole history is behind the user's vector
        assert backbone.users[cut[0] - soft_token("user", 0)] == (0, 2, 3)


@pytest.mark.parametrize("kind", [LLaRA, ALLMRec])
def test_a_title_that_is_cut_keeps_its_item(kind, tokenizer) -> None:
    long = "z" * 200
    backbone = kind(tokenizer, BOOK, max_prompt_tokens=None)
    backbone.know([long])
    limit = len(backbone.encode_prompts([[long]])[0]) - 20
    backbone.max_prompt_tokens = limit
    [prompt] = backbone.encode_prompts([[long]])
    assert len(prompt) <= limit and soft_token("item", 0) in prompt
    assert '"zzz' in words(tokenizer, prompt)


def test_the_curriculum() -> None:
    """Step c of C is hybrid with probability c / C; what is drawn depends on seed and step alone."""
    total = 50
    drawn = np.array([[hybrid_step(step, total, seed) for step in range(total)] for seed in range(400)])
    expected = (np.arange(total) + 1) / total
    spread = np.sqrt(expected * (1 - expected) / 400)
    assert (np.abs(drawn.mean(0) - expected) <= 4.5 * spread + 1e-12).all()
    assert drawn[:, -1].all() and drawn.std(0)[:-1].min() > 0
    assert [hybrid_step(s, total, 3) for s in range(total)] == drawn[3].tolist()
    assert all(hybrid_step(step, 10, seed) for step in (9, 10, 99) for seed in range(50))
    # Steps draw apart: neighbours agree no more often than chance would have it.
    high, middle = drawn[:, 20].astype(float), drawn[:, 21].astype(float)
    assert abs(np.corrcoef(high, middle)[0, 1]) < 0.2
