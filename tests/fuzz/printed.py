"""What a command prints, as a reader checks it."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from typing import Any


def _refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def strict_json(text: str | bytes) -> Any:
    """JSON without NaN and Infinity, which no other reader takes."""
    return json.loads(text, parse_constant=_refuse_constant)


@contextlib.contextmanager
def printed() -> Iterator[Callable[[], str]]:
    """What is printed meanwhile, through UTF-8 as in a terminal."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)

    def text() -> str:
        return out.buffer.getvalue().decode()  # type: ignore[attr-defined]

    with contextlib.redirect_stdout(out):
        yield text
