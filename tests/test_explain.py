"""Help that a newcomer can read, made from typed functions."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from bearray.commands.explain import WIDEST, call, description


def command(
    *,
    name: str,
    count: int | None = None,
    limit: int | None = 5,
    kind: Literal["a", "b"] | None = None,
    fast: bool = False,
    clean: bool = True,
) -> dict[str, Any]:
    """Do something for a name, in a sentence longer than a narrow terminal, which must therefore be broken.

    (And a second paragraph,
    with a break in it.)

    Args:
        name: Whose.
        count: How many (default: as many as fit).
        limit: At most so many (None: all).
        kind: Of which kind.
        fast: Be fast.
        clean: Clean up.
    """
    return {"name": name, "count": count, "limit": limit, "kind": kind, "fast": fast, "clean": clean}


def helped(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        call(command, "tool do", ["--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_help_says_no_more_than_is_needed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    out = helped(capsys)
    assert out.startswith("usage: tool do")
    for phrase in ("default: None", "default: False", "{None}|INT as", "--no-fast"):
        assert phrase not in out
    for phrase in (
        "--count INT",
        "as many as fit",
        "--kind {a,b}",
        "--no-clean",
        "(default: 5)",
        "(required)",
    ):
        assert phrase in out
    assert max(len(line.replace("\u200b", "")) for line in out.splitlines()) <= 60


def test_arguments_mean_what_they_meant() -> None:
    plain = {"name": "x", "count": None, "limit": 5, "kind": None, "fast": False, "clean": True}
    assert call(command, "do", ["--name", "x"]) == plain
    given = ["--name", "x", "--count", "3", "--limit", "None", "--kind", "b", "--fast", "--no-clean"]
    changed = {"name": "x", "count": 3, "limit": None, "kind": "b", "fast": True, "clean": False}
    assert call(command, "do", given) == changed


@pytest.mark.parametrize("wrong", [[], ["--name", "x", "--kind", "c"], ["--name", "x", "--count", "None"]])
def test_wrong_arguments_are_code_2(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        call(command, "do", wrong)
    assert stop.value.code == 2


def test_a_description_keeps_its_paragraphs_and_leaves_out_the_arguments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    text = description(command).replace("\u200b", "")
    first, second = text.split("\n\n")
    assert max(map(len, text.splitlines())) <= WIDEST < len(first) and first.startswith("Do something")
    assert second == "(And a second paragraph, with a break in it.)"


def test_a_function_without_a_docstring_has_no_description() -> None:
    assert description(lambda: None) == ""
