"""JSON that others wrote: what is refused, and that shapes name the place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bearray.errors import DataError
from bearray.plain import Number, check_shape, encodable, parse_json

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(plain)
def test_what_json_can_hold_is_read(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


BROKEN: list[str | bytes] = [
    "", "{", "nul", "[" * 100_000, '{"a":' * 100_000, "1" * 5_000, b"\xff", "{}".encode("utf-16"),
    r'"\ud800"', r'{"\uDFFF": 1}', r'["\uD83D", "\uDE00"]',
]  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
def test_what_would_break_a_reader_later_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


@pytest.mark.parametrize("text", ["NaN", '{"a": [1, {"b": -Infinity}]}', "[1e999]"])
def test_numbers_that_could_not_be_written_again_are_refused_where_it_is_asked(text: str) -> None:
    parse_json(text)
    with pytest.raises(ValueError, match="not finite"):
        parse_json(text, finite=True)
    assert parse_json('{"a": [1, 2.5, null, "NaN"]}', finite=True) == {"a": [1, 2.5, None, "NaN"]}


def test_pairs_of_halves_are_characters() -> None:
    assert parse_json(r'"\ud83d\ude00"') == "😀"
    assert parse_json("\ufeff1".encode()) == 1  # a byte order mark, as Windows writes it
    assert encodable("é") and not encodable("\udc00")


SHAPE = {
    "n!": Number(whole=True, low=0),
    "name": (str, type(None)),
    "rows": [{"*": Number(null=True)}],
    "on": bool,
}


def test_good_values_pass() -> None:
    check_shape({"n": 0}, SHAPE, "f")
    check_shape(
        {"n": 3, "name": None, "rows": [{}, {"a": 1, "b": None}], "on": True, "more": [{}]}, SHAPE, "f"
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "f: its content is []; it must be an object"),
        ({}, "f: has no 'n'; it has nothing"),
        ({"n": True}, "f: n is True; it must be a whole number from 0"),
        ({"n": -1}, "f: n is -1; it must be a whole number from 0"),
        ({"n": 1.0}, "f: n is 1.0"),
        ({"n": 10**400}, "f: n is 1000"),
        ({"n": float("nan")}, "f: n is nan"),
        ({"n": 1, "name": 2}, "f: name is 2; it must be text or null"),
        ({"n": 1, "rows": {}}, "f: rows is {}; it must be a list"),
        ({"n": 1, "rows": [{}, {"a": "x"}]}, "f: rows[1].a is 'x'; it must be a number or null"),
        ({"n": 1, "on": 1}, "f: on is 1; it must be true or false"),
    ],
)
def test_others_are_named(value: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        check_shape(value, SHAPE, "f")
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 200
