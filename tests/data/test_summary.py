from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bearray.data import open_dataset
from bearray.data.summary import check_dataset, dataset_stats
from bearray.errors import DataError, MissingFileError


def test_stats_of_a_small_set(layout: Callable[..., Path]) -> None:
    items = [
        (1, "Red &amp; Fox"),
        (2, 'Blue "B" Whale'),
        (3, "Red & Fox"),
        (4, "Gray Wolf"),
        (5, "Unsold"),
        (6, "Late"),
    ]
    folder = layout(
        items=items,
        train=[(10, [1, 2, 3], 100), (11, [2, 3, 2], 200)],
        valid=[(10, [2, 3, 4], 400)],
        test=[(11, [3, 2, 6], 500), (12, [1, 2], 600)],
    )
    stats = dataset_stats(open_dataset(folder))
    assert json.loads(json.dumps(stats)) is not None
    assert stats["users"] == 3 and stats["items"] == 6 and stats["items_in_windows"] == 5
    assert stats["interactions"] == 4 + 4 + 2
    assert stats["density"] == 10 / 18
    assert stats["windows"] == {"train": 2, "valid": 1, "test": 2}
    assert stats["window_lengths"] == {2: 1, 3: 4}
    assert stats["distinct_targets"] == {"train": 2, "valid": 1, "test": 2}
    assert stats["cold_target_share"] == {"valid": 1.0, "test": 0.5}
    assert stats["target_in_history_share"] == 1 / 5
    assert (stats["test_users"], stats["test_users_seen_in_train"]) == (2, 1)
    assert (stats["items_sharing_a_title"], stats["distinct_titles"]) == (2, 5)
    assert (stats["titles_with_html_entities"], stats["titles_with_double_quotes"]) == (1, 1)
    assert stats["title_words"]["min"] == 1 and stats["title_words"]["max"] == 3


def test_check_says_what_it_is(layout: Callable[..., Path]) -> None:
    folder = layout()
    result = check_dataset(folder)
    assert result["windows"] == {"train": 3, "valid": 1, "test": 3}
    assert result["content_hash"] == open_dataset(folder).content_hash


def test_check_raises(layout: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        check_dataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match="item 9"):
        check_dataset(layout(items=[(1, "a"), (2, "b"), (3, "c"), (4, "d"), (9, None)]), strict=True)


PAPER = {  # users, items, interactions, density (Table 1 of the paper), share of cold test targets (measured)
    "office": (4895, 2414, 53149, 0.004498, 0.4655),
    "toy": (19124, 11758, 165247, 0.000735, 0.2635),
}


@pytest.mark.data
@pytest.mark.parametrize("name", PAPER)
def test_table_1(shared: Callable[[str], Path], name: str) -> None:
    stats = dataset_stats(open_dataset(shared(name)))
    users, items, interactions, density, cold = PAPER[name]
    assert (stats["users"], stats["items"], stats["interactions"]) == (users, items, interactions)
    assert stats["density"] == pytest.approx(density, abs=5e-7)
    assert stats["cold_target_share"]["test"] == pytest.approx(cold, abs=5e-4)
