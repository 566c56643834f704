"""The text a stand-in base model is built from: the training split's histories, each item once.

Training windows of one user overlap: a user with 30 interactions has 20 windows, and nine in ten titles of
a window stand in the one before it. Used as they are, they would repeat the text of active users ten times,
so they are merged back into the sequence they were cut from. Nothing of the validation or test split is
read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from bearray.data import clean_title
from bearray.data.prompts import PromptTemplate, render_answer, render_prompt

if TYPE_CHECKING:
    import pandas as pd

    from bearray.data import Dataset


PROMPT_TITLES = 10
"""Titles in a question at most, as in a window."""


@dataclass(frozen=True)
class Corpus:
    """What may be learnt from: merged training histories, and the titles of the items in them."""

    histories: list[list[str]]
    """Cleaned titles in the order of consumption, one list a user (or a stretch of a user's time)."""
    titles: list[str]
    """Distinct cleaned titles of the items that occur in training windows, by item id."""


def training_corpus(dataset: Dataset, *, unescape: bool = True) -> Corpus:
    """Collect the training split's titles and histories."""
    title_of = {
        int(item): clean_title(title, unescape=unescape)
        for item, title in zip(dataset.items["item_id"], dataset.items["title"], strict=True)
    }
    sequences = merge_windows(dataset.train)
    seen = sorted({item for sequence in sequences for item in sequence})
    return Corpus(
        histories=[[title_of[item] for item in sequence] for sequence in sequences],
        titles=list(dict.fromkeys(title_of[item] for item in seen)),
    )


def merge_windows(windows: pd.DataFrame) -> list[list[int]]:
    """Undo the windowing: each user's item sequence, or several where windows in between are missing.

    Windows are taken by time. One that continues the sequence so far, with k >= 1 of its first items being
    the sequence's last k, adds the rest; one that is contained at the end adds nothing; one without overlap
    starts a new sequence. Windows of the same time are put in the order in which they overlap.

    Args:
        windows: columns user_id, item_ids, timestamp.

    Returns:
        Item sequences, by user id.
    """
    ordered = windows.sort_values(["user_id", "timestamp"], kind="stable")
    rows = zip(
        ordered["user_id"].tolist(), ordered["timestamp"].tolist(), ordered["item_ids"].tolist(), strict=True
    )
    merged: list[list[int]] = []
    for _, of_user in groupby(rows, key=lambda row: row[0]):
        sequences: list[list[int]] = []
        for _, at_once in groupby(of_user, key=lambda row: row[1]):
            waiting = [[int(item) for item in items] for _, _, items in at_once]
            while waiting:
                window = waiting.pop(_next_window(sequences[-1] if sequences else [], waiting))
                shared = _overlap(sequences[-1], window) if sequences else 0
                if shared:
                    sequences[-1].extend(window[shared:])
                else:
                    sequences.append(window)
        merged.extend(sequences)
    return merged


def _overlap(left: Sequence[int], right: Sequence[int]) -> int:
    """The largest k such that the last k items of `left` are the first k of `right`."""
    for k in range(min(len(left), len(right)), 0, -1):
        if list(left[-k:]) == list(right[:k]):
            return k
    return 0


def _next_window(sequence: Sequence[int], waiting: Sequence[Sequence[int]]) -> int:
    """Which window of one moment comes next: the one that continues the sequence best; with nothing to
    continue, the one that continues none of the others."""
    if len(waiting) == 1:
        return 0
    continued = [_overlap(sequence, window) for window in waiting]
    if max(continued) > 0:
        return int(np.argmax(continued))
    preceded = [
        max(_overlap(other, window) for j, other in enumerate(waiting) if j != i)
        for i, window in enumerate(waiting)
    ]
    return int(np.argmin(preceded))


def write_documents(
    histories: Iterable[Sequence[str]], rng: np.random.Generator, template: PromptTemplate
) -> list[str]:
    """Histories as text: half of them as lists of quoted titles, half as a question and its answer.

    Of the lists, a third is separated by commas, as in a prompt; a third has a title a line, as an answer
    stands; a third starts with commas and goes on with lines. A language model that had seen only one of
    these would not know the first token of an answer, because tokenizers join a quote at a line's start, but
    not one after a space, to the word behind it. The questions are the data set's prompts about up to ten
    titles that follow each other, answered by the next one: a pre-trained model has met instructions, too.
    """
    documents = []
    for history in histories:
        if len(history) > 1 and rng.random() < 0.5:
            target = int(rng.integers(1, len(history)))
            prompt = render_prompt(template, history[max(0, target - PROMPT_TITLES) : target])
            documents.append(prompt + render_answer(history[target]))
            continue
        quoted = [f'"{title}"' for title in history]
        style = rng.integers(3)
        commas = (len(quoted), 0, int(rng.integers(1, len(quoted) + 1)))[style]
        documents.append("\n".join([*([", ".join(quoted[:commas])] if commas else []), *quoted[commas:]]))
    return documents
