"""Answers that were made once and are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from bearray.negatives import KeptAnswers
from bearray.negatives.drawn import Drawn

ROWS = np.array([2, 5, 9])
DRAWN = [[Drawn(4, -0.5), Drawn(7, -1.5)], [], [Drawn(0, -2.0)]]


def test_windows_get_back_what_was_made_for_them(tmp_path: Path) -> None:
    kept = KeptAnswers.of(ROWS, DRAWN, width=2)
    save_file(kept.tensors(), tmp_path / "kept.safetensors")
    for answers in (kept, KeptAnswers.from_tensors(load_file(tmp_path / "kept.safetensors"))):
        assert answers.drawn([9, 2, 5, 2]) == [DRAWN[2], DRAWN[0], DRAWN[1], DRAWN[0]]
        assert answers.drawn([]) == []


@pytest.mark.parametrize("row", [0, 3, 10])
def test_windows_that_are_not_among_them_are_refused(row: int) -> None:
    with pytest.raises(ValueError, match="no answers are kept"):
        KeptAnswers.of(ROWS, DRAWN, width=2).drawn([2, row])


def test_windows_without_answers() -> None:
    kept = KeptAnswers.of(ROWS, [[], [], []], width=0)
    assert kept.drawn([5]) == [[]]
    with pytest.raises(ValueError, match="no answers are kept"):
        KeptAnswers.of(np.array([], dtype=np.int64), [], width=1).drawn([0])
