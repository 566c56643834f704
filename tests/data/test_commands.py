"""The `bearray data` subcommands, called as tyro calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tyro

from bearray.commands import data as commands
from bearray.data import open_dataset
from bearray.errors import DataError

SUBCOMMANDS = {name: getattr(commands, name) for name in ("prepare", "fetch", "check", "stats", "demo")}


def run(*args: str) -> None:
    tyro.extras.subcommand_cli_from_dict(SUBCOMMANDS, args=list(args))


def test_prepare_check_and_stats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events, items = tmp_path / "events.csv", tmp_path / "items.csv"
    rows = [f"{user},{item},{100 * user + item}" for user in range(1, 31) for item in range(1, 8)]
    events.write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
    items.write_text("item_id,title\n" + "\n".join(f"{n},Thing {n}" for n in range(1, 8)) + "\n")
    run(
        "prepare",
        "--interactions",
        str(events),
        "--items",
        str(items),
        "--out",
        f"{tmp_path}/d",
        "--k-core",
        "5",
    )
    assert f"written to {tmp_path / 'd'}" in capsys.readouterr().out
    run("check", f"{tmp_path}/d")
    assert "good; 7 items, windows: 24 train, 3 valid, 3 test" in capsys.readouterr().out
    run("stats", f"{tmp_path}/d", "--json")
    stats = json.loads(capsys.readouterr().out)
    assert stats["users"] == 30 and stats["density"] == 1.0
    run("stats", f"{tmp_path}/d")
    assert "cold target share" in capsys.readouterr().out


def test_check_raises(layout: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="empty"):
        run("check", str(layout(test=[])))


def test_check_reports_untitled_items(
    layout: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = layout(items=[(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "")])
    run("check", str(folder))
    assert "untitled items: 1" in capsys.readouterr().out
    with pytest.raises(DataError, match="strict"):
        run("check", str(folder), "--strict")


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("demo", "--out", str(tmp_path / "demo"), "--items", "60", "--users", "80", "--seed", "3")
    assert len(open_dataset(tmp_path / "demo").items) <= 63
    assert "written to" in capsys.readouterr().out


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_help_describes_every_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(command, "--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "Args:" not in text, "tyro could not parse the docstring"


def test_fetch_knows_four_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("fetch", "movies")
    assert caught.value.code == 2
    assert "clothing" in capsys.readouterr().err


def test_help_needs_no_heavy_import() -> None:
    heavy = ("pandas", "pyarrow", "torch", "httpx")
    code = f"import sys, bearray.commands.data; print(*[m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
