"""The command line: every command explains itself; a mistake of the user costs one message and code 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bearray import cli
from bearray.errors import ConfigError

SWEEPS = sorted((Path(__file__).resolve().parents[1] / "sweeps").glob("*.py"))


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error, whether the command returns or exits."""
    try:
        code = cli.run(arguments)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, *command.split(), "--help")
    assert code == 0
    assert "usage:" in out and "--" in out


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",), ("help",)])
def test_the_overview_names_every_command(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, *arguments)
    assert code == 0
    for name, (_, about) in cli.COMMANDS.items():
        assert f"bearray {name} " in out and about in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--version")
    assert code == 0 and out.startswith("bearray ")


def test_a_group_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "data", "--help")
    assert code == 0 and "bearray data prepare" in out and "bearray report" not in out
    assert call(capsys, "data")[0] == 2


@pytest.mark.parametrize("arguments", [("nonsense",), ("data", "nonsense"), ("base-model", "nonsense")])
def test_an_unknown_command_is_named(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, *arguments)
    assert code == 2 and out == ""
    assert err.startswith(f"error: there is no command {' '.join(arguments)!r}\n")
    assert "bearray data prepare" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("data", "check", "/no/such/folder"), "/no/such/folder does not exist"),
        (("data", "stats", "/no/such/folder"), "/no/such/folder does not exist"),
        (("data", "prepare", "--out", "x"), "give one of --reviews and --metadata"),
        (("data", "prepare", "--out", "x", "--interactions", "no.csv", "--items", "no.csv"), "no.csv"),
        (
            ("data", "prepare", "--out", "x", "--interactions", "a", "--items", "b", "--ratio", "8:1"),
            "ratio is '8:1'",
        ),
        (("data", "prepare", "--out", "x", "--csv-folder", "no", "--k-core", "3"), "--csv-folder"),
        (("data", "demo", "--out", "x", "--items", "3"), "demo items is 3"),
        (("base-model", "build", "--data-dir", "/no/such/folder"), "/no/such/folder does not exist"),
        (("report", "/no/such/folder"), "/no/such/folder"),
        (("pruning",), "no run is given"),
        (("pruning", "/no/such/run"), "/no/such/run does not exist"),
        (("pruning", "."), "there is no finished run"),
    ],
)
def test_a_wrong_value_is_one_line_and_code_2(
    arguments: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--objective.lam", "-1"), "objective.lam is -1.0"),
        (("--objective.xi", "0"), "objective.xi is 0.0"),
        (("--decoding.beam-width", "0"), "decoding.beam_width is 0"),
        (("--search.lam", "2", "1"), "search.lam is (2.0, 1.0)"),
        (("--methods", "bear", "bert"), "unknown objective 'bert'"),
        (("--objective.lambda", "1"), "--objective.lam"),
        (("--train.epochs", "many"), "--train.epochs"),
        (("--data-dir", ""), "--data-dir"),
    ],
)
def test_a_wrong_setting_of_a_sweep_is_code_2(
    arguments: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "400")  # messages in frames are not broken into lines
    storage = tmp_path / "storage"
    code, out, err = call(capsys, "sweep", "--storage", str(storage), *arguments)
    assert code == 2
    assert message in err, err
    assert "Traceback" not in out + err
    assert not storage.exists()


@pytest.mark.parametrize("command", [("data", "prepare"), ("data", "check"), ("data", "fetch", "games")])
def test_a_wrong_argument_is_code_2(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, *command)
    assert code == 2
    assert "Traceback" not in out + err and f"bearray {command[0]} {command[1]}" in out + err


def test_pruning_compares_the_widths_that_are_measured_by_default() -> None:
    import inspect

    from bearray.commands.pruning import pruning
    from bearray.pruning import WIDTHS

    assert inspect.signature(pruning).parameters["widths"].default == WIDTHS


@pytest.mark.parametrize("wrong", [("--split", "train"), ("--normalize", "none"), ("--widths", "wide")])
def test_a_wrong_option_of_pruning_is_code_2(
    wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, "pruning", "run", *wrong)
    assert code == 2 and "Traceback" not in out + err and wrong[0] in out + err


def test_errors_of_the_program_itself_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("bearray.commands.listing.objectives", broken)
    with pytest.raises(ZeroDivisionError):
        cli.run(["objectives"])


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [(ConfigError("lam is -1"), 2, "error: lam is -1\n"), (KeyboardInterrupt(), 130, "interrupted\n")],
)
def test_exit_codes(
    error: BaseException,
    code: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def raise_it() -> None:
        raise error

    monkeypatch.setattr("bearray.commands.listing.objectives", raise_it)
    assert call(capsys, "objectives") == (code, "", text)


def test_objectives_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "objectives", "--json")
    rows = json.loads(out)
    assert code == 0
    _check_rows(rows)
    assert {"sft", "msl", "bear"} <= {row["name"] for row in rows}
    assert next(row for row in rows if row["name"] == "bear")["needs"] == ["trie"]


def test_decoders_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "decoders", "--json")
    rows = json.loads(out)
    assert code == 0
    _check_rows(rows)
    assert {"beam", "exact"} <= {row["name"] for row in rows}


def _check_rows(rows: list[dict[str, Any]]) -> None:
    assert rows and all(set(row) == {"name", "needs", "source"} for row in rows)
    names = [row["name"] for row in rows]
    assert len(names) == len(set(names))
    for row in rows:
        assert isinstance(row["needs"], list) and all(isinstance(need, str) for need in row["needs"])
        assert row["source"].strip()


@pytest.mark.parametrize("listing", ["objectives", "decoders"])
def test_tables_for_people_hold_the_same_names(
    listing: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    names = [row["name"] for row in json.loads(call(capsys, listing, "--json")[1])]
    table = call(capsys, listing)[1]
    assert all(name in table for name in names)


def test_the_installed_command_exits_with_2_and_no_traceback() -> None:
    """One real process: the entry point, its exit code and its streams."""
    done = subprocess.run(
        [sys.executable, "-c", "from bearray.cli import main; main()", "data", "check", "/no/such/folder"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: /no/such/folder does not exist")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_every_sweep_has_the_common_arguments(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process: each file is short, defines `sweep`, and hands it to the common command line."""
    import importlib.util

    from bearray.tuning.main import parse

    assert len(file.read_text(encoding="utf-8").splitlines()) < 80
    spec = importlib.util.spec_from_file_location(f"sweep_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(SystemExit) as stop:
        parse(module.sweep, ["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for option in ("--data-dir", "--storage", "--base-model", "--smoke"):
        assert option in out
    smoke = parse(module.sweep, ["--smoke", "--storage", "elsewhere", "--train.epochs", "5"])
    assert smoke.smoke and smoke.storage == "elsewhere" and smoke.run.train.epochs == 5
    assert smoke.run.data.train_windows is not None and smoke.run.data.train_windows <= 200


def test_a_typing_error_in_an_axis_is_found_before_anything_starts() -> None:
    from bearray.config import RunConfig, override

    with pytest.raises(ConfigError, match=r"objective\.lamda"):
        override(RunConfig(), {"objective.lamda": 1.0})
