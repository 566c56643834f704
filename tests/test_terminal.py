"""What is printed for people is shown as it is, whatever brackets and colons it holds."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from bearray.terminal import terminal, text_column

PACKAGE = Path(__file__).resolve().parents[1] / "bearray"
GLOO = "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out"
TEXTS = (GLOO, "[rank1]: lost", "results/[old]/run", "a[/b]", "[red]x[/red]", ":warning: \\[x]")


@pytest.mark.parametrize("text", TEXTS)
def test_a_string_is_no_markup(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    console = terminal(width=200)
    console.print(text)
    table = Table(text, title=text, box=None, pad_edge=False)
    table.add_row(text)
    console.print(table)
    console.print(Text.assemble((text, "red"), " ", text))
    out = capsys.readouterr().out
    assert out.count(text) == 6 and "\x1b" not in out


def test_a_bars_name_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(text_column(), text_column("{task.fields[told]}"), console=terminal(width=200)) as bar:
        bar.add_task("a[/b]", told=GLOO)
    assert f"a[/b] {GLOO}" in capsys.readouterr().out


def consoles_of_ones_own(source: str) -> set[str]:
    """What a module makes consoles, columns or text with that read markup."""
    nodes = list(ast.walk(ast.parse(source)))
    imported = {
        f"{node.module}.{a.name}" for node in nodes if isinstance(node, ast.ImportFrom) for a in node.names
    }
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    readers = {"rich.print", "rich.console.Console", "rich.progress.TextColumn", "rich.progress.track"}
    return imported & readers | attributes & {"from_markup", "render_str"}


def test_all_printing_goes_through_these_consoles() -> None:
    files = [file for file in sorted(PACKAGE.rglob("*.py")) if file.name != "terminal.py"]
    found = {str(file.relative_to(PACKAGE)): consoles_of_ones_own(file.read_text()) for file in files}
    assert not {name: what for name, what in found.items() if what}
    assert consoles_of_ones_own("def f():\n    from rich.console import Console")
    assert consoles_of_ones_own("Text.from_markup(x)")
