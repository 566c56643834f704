"""Merging windows back into sequences, and what text is made of them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearray.backbones.corpus import merge_windows, training_corpus, write_documents
from bearray.data import Dataset, open_dataset
from bearray.data.prompts import DOMAINS, render_answer, render_prompt


def frame(rows: list[tuple[int, list[int], int]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item_ids", "timestamp"])


@given(length=st.integers(2, 30), order=st.randoms(), width=st.integers(2, 11))
def test_windows_of_distinct_items_merge_into_the_sequence(length: int, order, width: int) -> None:
    """Whatever the order of rows, and with several windows on one day."""
    sequence = list(range(100, 100 + length))
    ends = range(min(width, length), length + 1)
    rows = [(1, sequence[max(0, end - width) : end], (end - 1) // 3) for end in ends]
    order.shuffle(rows)
    assert merge_windows(frame(rows)) == [sequence]


def test_users_stay_apart_and_gaps_start_anew() -> None:
    of_one = [(1, [1, 2, 3], 1), (1, [2, 3, 4], 2), (1, [7, 8, 9], 3), (1, [8, 9, 1], 4)]
    assert merge_windows(frame([(2, [1, 2, 3], 9), *of_one])) == [[1, 2, 3, 4], [7, 8, 9, 1], [1, 2, 3]]


def test_a_repeated_window_adds_nothing() -> None:
    assert merge_windows(frame([(1, [1, 2, 3], 1), (1, [1, 2, 3], 1), (1, [2, 3, 2], 2)])) == [[1, 2, 3, 2]]


def test_only_the_training_split_is_read(awkward_data: Dataset) -> None:
    corpus = training_corpus(awkward_data)
    text = " ".join([*corpus.titles, *(t for history in corpus.histories for t in history)])
    assert "zebrafish" not in text and "quokka" not in text
    assert "Harry & the Stone" in corpus.titles and "Spaces inside" in corpus.titles
    assert len(corpus.titles) == 10
    assert corpus.histories[0] == [corpus.titles[i] for i in range(7)]  # three windows, each title once
    assert "Harry &amp; the Stone" in training_corpus(awkward_data, unescape=False).titles


def test_lists_hold_each_title_in_order_in_all_three_layouts() -> None:
    history = [f"t{i}" for i in range(6)]
    written = write_documents([history] * 400, np.random.default_rng(0), DOMAINS["book"])
    documents = [d for d in written if "### Response" not in d]
    assert 140 < len(documents) < 260
    quoted = [f'"{t}"' for t in history]
    assert {d.replace("\n", ", ") for d in documents} == {", ".join(quoted)}
    lines, commas = documents.count("\n".join(quoted)), documents.count(", ".join(quoted))
    assert lines > 40 and commas > 40 and len(documents) - lines - commas > 30
    assert written == write_documents([history] * 400, np.random.default_rng(0), DOMAINS["book"])


def test_questions_are_the_prompts_about_titles_that_the_answer_follows() -> None:
    history, template = [f"t{i}" for i in range(14)], DOMAINS["office"]
    written = write_documents([history] * 400 + [["alone"]] * 20, np.random.default_rng(0), template)
    questions = [d for d in written if "### Response" in d]
    possible = [
        render_prompt(template, history[max(0, i - 10) : i]) + render_answer(history[i]) for i in range(1, 14)
    ]
    assert set(questions) == set(possible)  # every title is asked for, the first one never
    assert written.count('"alone"') == 20


@pytest.mark.data
def test_real_windows_merge_completely() -> None:
    """One sequence a user, and no interaction lost or doubled."""
    root = os.environ.get("BEARRAY_DATA") or Path(__file__).parents[3] / "shared" / "data"
    folder = Path(root) / "office"
    if not folder.is_dir():
        pytest.skip("no data set office (set BEARRAY_DATA)")
    train = open_dataset(folder).train
    merged = merge_windows(train)
    assert len(merged) == train["user_id"].nunique()
    first = train.drop_duplicates("user_id")["item_ids"].map(len).sum()
    assert sum(map(len, merged)) == first + len(train) - len(merged)
