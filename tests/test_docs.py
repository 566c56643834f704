"""README and docs: the code runs, the commands exist, the links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bearray import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """(line of the first statement, text) of the page's code blocks in a language."""
    text = page.read_text(encoding="utf-8")
    found = FENCE.finditer(text)
    return [(text[: m.start(2)].count("\n") + 1, m[2]) for m in found if m[1] == language]


def code(page: Path) -> str:
    """All commands a page shows: its shell blocks and the code within its sentences."""
    text = page.read_text(encoding="utf-8")
    inline = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    return "\n".join([*(body for _, body in blocks(page, "bash")), *inline])


def commands(page: Path, program: str) -> Iterator[list[str]]:
    """Arguments of each call of a program."""
    for line in code(page).splitlines():
        line = line.split("#")[0].strip()
        if line.startswith(f"{program} "):
            yield shlex.split(line)[1:]


PYTHON_PAGES = [page for page in PAGES if page.exists() and blocks(page, "python")]


def test_the_pages_are_there() -> None:
    assert all(page.is_file() for page in PAGES)
    assert {"README.md", "architecture.md", "data.md", "objectives.md"} <= {
        page.name for page in PYTHON_PAGES
    }


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: page.name)
def test_python_runs(
    page: Path, demo_dir: Path, micro_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page's blocks run one after the other, in an empty folder with the data set and the base model that
    docs/architecture.md makes first."""
    from bearray.objectives import OBJECTIVES

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "demo").symlink_to(demo_dir)
    (tmp_path / "base").symlink_to(micro_base)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BEARRAY_CACHE", str(tmp_path / "cache"))
    registered = dict(OBJECTIVES)
    names: dict[str, Any] = {"__name__": "__docs__"}
    try:
        for line, source in blocks(page, "python"):
            exec(compile("\n" * (line - 1) + source, str(page), "exec"), names)
    finally:
        OBJECTIVES.clear()
        OBJECTIVES.update(registered)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_bearray_commands_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands(page, "bearray"):
        if words[0] in ("COMMAND", "--help", "--version", "..."):
            continue
        name = next((n for n in (" ".join(words[:2]), words[0]) if n in cli.COMMANDS), None)
        assert name is not None, f"{page.name} names `bearray {' '.join(words)}`, which does not exist"
        with pytest.raises(SystemExit) as stop:
            cli.run([*name.split(), "--help"])
        assert stop.value.code == 0
        text = capsys.readouterr().out
        for option in (word for word in words if word.startswith("--")):
            assert option in text, f"{page.name}: bearray {name} has no {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_of_sweeps_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`python sweeps/X.py --option`, and options that stand alone, such as `--methods sft`."""
    with pytest.raises(SystemExit):
        cli.run(["sweep", "--help"])
    known = capsys.readouterr().out
    for words in commands(page, "python"):
        assert (ROOT / words[0]).is_file(), f"{page.name} names {words[0]}"
        for option in (word for word in words if word.startswith("--")):
            assert option in known, f"{page.name}: {words[0]} has no {option}"
    for command in cli.COMMANDS:
        with pytest.raises(SystemExit):
            cli.run([*command.split(), "--help"])
        known += capsys.readouterr().out
    for line in code(page).splitlines():
        if line.startswith("--"):
            option = re.split(r"[ =]", line)[0]
            assert re.search(rf"{re.escape(option)}\b", known), f"{page.name}: no command has {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for words in commands(page, "make"):
        assert words[0] in targets or "=" in words[0], f"{page.name} names `make {words[0]}`"


def test_make_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    for target in set(phony[1].split()) - {"help"}:
        assert f'@echo "make {target} ' in makefile


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if not re.match(r"[a-z]+:", target):
            place = page.parent / target.split("#")[0]
            assert place.exists(), f"{page.name} links to {target}, which is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_of_the_package_exist(page: Path) -> None:
    for name in re.findall(r"`((?:bearray|sweeps|tests|docs)/[\w./*]+)`", page.read_text(encoding="utf-8")):
        assert any(ROOT.glob(name)), f"{page.name} names {name}, which is not there"


def test_readme_lists_every_objective(capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["objectives", "--json"])
    names = {row["name"] for row in json.loads(capsys.readouterr().out)}
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(table) == names and len(table) == len(names)


def test_the_three_forms_of_bear_are_explained() -> None:
    from typing import get_args

    from bearray.config import Form

    text = (ROOT / "docs" / "objectives.md").read_text(encoding="utf-8")
    assert all(f"**{form}**" in text for form in get_args(Form))
