"""Titles as people type them."""

from __future__ import annotations

import pandas as pd
import pytest

from bearray.catalog import build_catalog
from bearray.errors import DataError
from bearray.serving import TitleIndex

TITLES = ["The Red Door", "The Red Doors", "Night & Day", "Time; and Again", "Again", "A Quiet Harbour"]


@pytest.fixture(scope="module")
def index() -> TitleIndex:
    items = pd.DataFrame({"item_id": [3, 4, 5, 6, 7, 8], "title": TITLES})
    return TitleIndex(build_catalog(items, lambda texts: [list(text.encode()) for text in texts]))


def test_titles_are_cleaned_as_the_catalogue_is(index: TitleIndex) -> None:
    found = index.history(["  Night &amp;  Day", "The Red Door"])
    assert found.titles == ("Night & Day", "The Red Door")
    assert found.title_ids == (2, 0) and found.unknown == ()


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [("The Red Dor", "The Red Door"), ("quiet harbor", "A Quiet Harbour"), ("the red door", "The Red Door")],
)
def test_a_title_that_is_not_there_brings_those_that_look_like_it(
    index: TitleIndex, typed: str, suggested: str
) -> None:
    with pytest.raises(
        DataError, match=f"title '{typed}' is not in the catalogue; did you mean '{suggested}'"
    ):
        index.history(["Again", typed])


def test_nothing_is_suggested_for_what_looks_like_nothing(index: TitleIndex) -> None:
    with pytest.raises(DataError, match="not in the catalogue, nor one like it"):
        index.history(["zzzzqqqqxxxx"])


def test_unknown_titles_are_kept_where_they_are_allowed(index: TitleIndex) -> None:
    found = index.history(["Again", "Some &amp; Other"], allow_unknown=True)
    assert found.titles == ("Again", "Some & Other")
    assert found.title_ids == (4,) and found.unknown == ("Some & Other",)


@pytest.mark.parametrize(
    ("titles", "message"),
    [([], "is empty"), (["Again", " "], "title 2 of the history"), (["\ud800"], "not valid Unicode")],
)
def test_a_history_without_text_is_an_error(index: TitleIndex, titles: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        index.history(titles, allow_unknown=True)


@pytest.mark.parametrize(
    ("text", "titles"),
    [
        ("The Red Door; Again", ["The Red Door", "Again"]),
        ("The Red Door;Again;", ["The Red Door", "Again"]),
        ("Time; and Again; Again", ["Time; and Again", "Again"]),
        ("Again; Time;  and Again", ["Again", "Time; and Again"]),
        ("Unknown; Time", ["Unknown", "Time"]),
        ("Night &amp; Day; Again", ["Night & Day", "Again"]),
        (" ; ", []),
    ],
)
def test_a_semicolon_separates_unless_a_title_has_it(index: TitleIndex, text: str, titles: list[str]) -> None:
    assert index.split(text) == titles


def test_item_ids_stand_for_their_titles(index: TitleIndex) -> None:
    assert index.of_items([8, 3]) == ["A Quiet Harbour", "The Red Door"]
    with pytest.raises(
        DataError, match="item 9 is not in the catalogue, whose 6 item ids lie between 3 and 8"
    ):
        index.of_items([3, 9])
