"""Values that readers trip over, and how they get into a tree of plain values."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

DEEP = 50_000
"""Levels of nesting that overflow a recursive parser's stack."""

TEXTS = (
    "", " ", "\x00", "\n", "\r", "\t", "../../escape", "/etc/passwd", "C:\\x", "a/b", "..", "~", "é", "日本",
    "\u202e", "\ud800", "\ufeff", "=1+1", "+1", "-1", "@x", "<script>", "%s%n", "{{7*7}}", "$(id)", "NaN",
    "inf", "-0", "1e400", "0x10", "true", "null", "None", "x" * 5_000, "s3://", "file://", "run:../../x",
    "ndcg@", "hr@x", "hr@10",
)  # fmt: skip
NUMBERS = (
    0, -1, 1, 2, 10, 2**31 - 1, 2**31, 2**32, -(2**31) - 1, 2**63 - 1, 2**63, -(2**63), 2**64, 10**30, 0.5,
    -0.0, 1e-320, 1e300, float("inf"), float("-inf"), float("nan"),
)  # fmt: skip


def weird(rng: random.Random, depth: int = 2) -> Any:
    """Any plain value."""
    kind = rng.randrange(9)
    if kind <= 2:
        return rng.choice(NUMBERS)
    if kind <= 4:
        return rng.choice(TEXTS)
    if kind == 5:
        return rng.choice((None, True, False))
    if depth == 0:
        return rng.choice(([], {}))
    if kind == 6:
        return [weird(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind == 7:
        return {rng.choice(TEXTS): weird(rng, depth - 1) for _ in range(rng.randrange(4))}
    return json.loads("[" * 30 + "]" * 30)


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a tree."""
    found: list[tuple[Any, Any]] = []
    stack = [tree]
    while stack:
        node = stack.pop()
        entries = (
            node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        )
        for key, value in entries:
            found.append((node, key))
            stack.append(value)
    return found


def changed(tree: Any, rng: random.Random) -> Any:
    """A copy of a tree of dictionaries and lists with one to three places changed."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = _places(tree)
        if not places or rng.random() < 0.03:
            return weird(rng)
        node, key = rng.choice(places)
        kind = rng.randrange(7)
        if kind == 0:
            del node[key]
        elif kind == 1 and isinstance(node, dict):
            node[rng.choice((*TEXTS, f"{key}x"))] = node.pop(key)
        elif kind == 2:
            other, place = rng.choice(places)
            other[place] = copy.deepcopy(node[key])
        elif kind == 3 and isinstance(node[key], (int, float)):
            node[key] = rng.choice(NUMBERS)
        else:
            node[key] = weird(rng)
    return tree


def json_text(tree: Any, rng: random.Random) -> bytes:
    """A tree as JSON; now and then JSON that no writer would make."""
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.5)
    kind = rng.randrange(40)
    if kind == 0:
        text = "[" * DEEP + text + "]" * DEEP
    elif kind == 1:
        text = '{"a":' * DEEP + text + "}" * DEEP
    elif kind == 2 and text.startswith("{"):
        text = text[:-1] + ", " * (len(text) > 2) + text[1:]  # every key twice
    elif kind == 3:
        text = text.replace("0", "9" * 5_000, 1)  # more digits than Python turns into a number
    data = text.encode("utf-8", "surrogatepass")
    if kind == 4:
        data = text.encode("utf-16", "surrogatepass")
    elif kind == 5:
        data = b"\xef\xbb\xbf" + data
    return data
