"""JSON that others wrote: what no reader can use is one kind of error, and shapes are checked before use.

`json.loads` lets through what breaks its callers later: nesting that overflows the stack, and halves of
characters (`"\\ud800"`) that no file can hold. Here both are a ValueError, as is text that is not JSON or
not UTF-8. And text that others wrote, made fit to be shown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from bearray.errors import DataError


def parse_json(text: str | bytes, *, finite: bool = False) -> Any:
    """The value of a JSON text.

    Args:
        finite: refuse NaN and infinities, which JSON does not have but Python reads: what is written again
            later could not be.

    Raises:
        ValueError: it is not JSON, nested too deeply, or holds text that is not Unicode.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    try:
        value = json.loads(text)
        if finite and not _all_finite(value):
            raise ValueError("it holds a number that is not finite")
        if "\\ud" in text or "\\uD" in text:  # surrogates; in pairs they are characters
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError(f"it holds {error.object[error.start]!r}, which is half a character") from error
    return value


def _all_finite(value: Any) -> bool:
    """No NaN and no infinity anywhere, spelt out or by an exponent that is too large."""
    if isinstance(value, dict):
        return all(map(_all_finite, value.values()))
    if isinstance(value, list):
        return all(map(_all_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def encodable(text: str) -> bool:
    """Whether text can be written as UTF-8; halves of characters cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """`visible` text in one line."""
    return visible(" ".join(text.split()))


def visible(text: str) -> str:
    """Text without what nobody can see: control characters, and marks that turn the direction of writing,
    with which a name can look like another one. Each becomes a replacement character."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in text)


class Number:
    """A finite number from `low` to `high`; if asked, an integer, or null."""

    def __init__(
        self, *, whole: bool = False, low: float = -math.inf, high: float = math.inf, null: bool = False
    ) -> None:
        self.whole, self.low, self.high, self.null = whole, low, high, null

    def fits(self, value: object) -> bool:
        if value is None:
            return self.null
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        return _finite(value) and self.low <= value <= self.high

    def __str__(self) -> str:
        what = "a whole number" if self.whole else "a number"
        low = f" from {self.low:g}" if self.low > -math.inf else ""
        high = f" to {self.high:g}" if self.high < math.inf else ""
        return what + low + high + (" or null" if self.null else "")


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond what a float holds
        return False


def check_shape(value: Any, shape: Any, where: str) -> None:
    """Compare a parsed value with what a reader expects.

    Args:
        value: as `parse_json` returns it.
        shape: a type or a tuple of types; a `Number`; [shape], a list of such values; or {name: shape}, an
            object in which these names, where they are there, have these shapes. The name "*" stands for all
            others, and "name!" for one that must be there.
        where: the file, for the message.

    Raises:
        DataError: it is of another shape; the message has the place in the file and the value.
    """
    _check(value, shape, where, "")


def _check(value: Any, shape: Any, where: str, name: str) -> None:
    if isinstance(shape, Mapping):
        _require(isinstance(value, dict), value, "an object", where, name)
        for key in (k[:-1] for k in shape if k.endswith("!")):
            if key not in value:
                have = ", ".join(map(repr, value))[:200] or "nothing"
                raise DataError(f"{where}: {name + ' ' if name else ''}has no {key!r}; it has {have}")
        for key, inner in value.items():
            wanted = shape.get(key, shape.get(f"{key}!", shape.get("*")))
            if wanted is not None:
                _check(inner, wanted, where, f"{name}.{key}" if name else str(key))
    elif isinstance(shape, list):
        _require(isinstance(value, list), value, "a list", where, name)
        for place, inner in enumerate(value):
            _check(inner, shape[0], where, f"{name}[{place}]")
    elif isinstance(shape, Number):
        _require(shape.fits(value), value, str(shape), where, name)
    else:
        kinds = shape if isinstance(shape, tuple) else (shape,)
        fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
        _require(fits, value, " or ".join(_WORDS[kind] for kind in kinds), where, name)


_WORDS = {str: "text", dict: "an object", list: "a list", bool: "true or false", type(None): "null"}


def _require(condition: bool, value: Any, wanted: str, where: str, name: str) -> None:
    if not condition:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else f"{shown[:80]}..."
        raise DataError(f"{where}: {name or 'its content'} is {shown}; it must be {wanted}")
