"""`bearray recommend` and `bearray export` as people and programs call them."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from bearray import cli
from bearray.commands.recommend import _print_table, _say
from bearray.errors import DataError, MissingFileError
from bearray.serving import Recommender, open_recommender
from bearray.serving.export import export_run
from bearray.serving.histories import Asked, read_histories
from bearray.serving.recommender import Recommendation, RecommendedList, plain


@pytest.fixture(autouse=True)
def opened(recommender: Recommender, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The run is opened once for all tests of this file."""
    asked: list[str] = []

    def open_recommender(place: str, **_: object) -> Recommender:
        asked.append(place)
        return recommender

    monkeypatch.setattr("bearray.serving.open_recommender", open_recommender)
    return asked


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.run(["recommend", "--run", "RUN", *arguments])
    return (code, *capsys.readouterr())


def test_a_table_for_people(
    capsys: pytest.CaptureFixture[str],
    recommender: Recommender,
    histories: list[list[str]],
    opened: list[str],
) -> None:
    code, out, _ = call(capsys, "--history", "; ".join(histories[2]), "--k", "3")
    (found,) = recommender.recommend(histories[2:3], k=3)
    assert code == 0 and opened == ["RUN"]
    lines = out.splitlines()
    assert (
        lines[0].startswith("BEAR on demo, local:tiny:") and "4 beams" in lines[0] and "stand-in" in lines[1]
    )
    assert f"after: {'; '.join(histories[2])}" in lines
    rows = [line for line in lines if line.strip()[:1].isdigit()]
    assert len(rows) == 3
    for row, item in zip(rows, found.items, strict=True):
        for cell in (item.title, str(item.item_ids[0]), f"{item.score:.4f}", f"{item.margin:.3f}"):
            assert cell in row
    assert ("proven: the best 3" in out) == found.proven and ("not proven" in out) != found.proven


def test_a_log_has_every_title_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    title = " ".join(["Field Guide"] * 20)
    item = Recommendation(title=title, item_ids=(7,), score=-1.5, margin=0.5)
    found = RecommendedList(history=("Red Fox",), unknown=(), items=(item,), proven=True)
    _print_table(Asked("Red Fox"), found, titles=1)
    assert title in capsys.readouterr().out


def test_exact_search_is_proven(capsys: pytest.CaptureFixture[str], histories: list[list[str]]) -> None:
    code, out, _ = call(capsys, "--history", histories[0][0], "--exact")
    assert code == 0 and "exact search" in out and "proven: the best 4 of all" in out


def test_json_for_programs_has_an_object_a_line(
    capsys: pytest.CaptureFixture[str], recommender: Recommender, histories: list[list[str]]
) -> None:
    two = [option for h in histories[:2] for option in ("--history", "; ".join(h))]
    code, out, _ = call(capsys, "--json", "--normalize", "full", "--exclude-history", *two)
    wanted = recommender.recommend(histories[:2], normalize="full", exclude_history=True)
    assert code == 0 and [json.loads(line) for line in out.splitlines()] == [plain(row) for row in wanted]


def test_histories_from_files(
    capsys: pytest.CaptureFixture[str], recommender: Recommender, histories: list[list[str]], tmp_path: Path
) -> None:
    table, lines = tmp_path / "h.csv", tmp_path / "h.jsonl"
    table.write_text('user,history\nu1,"' + "; ".join(histories[1]) + '"\nu2,' + histories[0][0] + "\n")
    rows = [{"user": "u1", "history": histories[1]}, {"user": 2, "history": histories[0][0]}]
    lines.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    wanted = [plain(row) for row in recommender.recommend([histories[1], histories[0]])]
    for file, users in ((table, ["u1", "u2"]), (lines, ["u1", "2"])):
        code, out, _ = call(capsys, "--json", "--histories", str(file))
        found = [json.loads(line) for line in out.splitlines()]
        assert code == 0 and [row.pop("user") for row in found] == users and found == wanted
    assert "u1, after: " in call(capsys, "--histories", str(table))[1]


def test_what_is_opened_is_said_on_standard_error(
    run_folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    export = export_run(str(run_folder), tmp_path / "export")
    for place, words in (
        (run_folder, ("reading the catalogue of demo", "opening local:tiny with what bear-1234 has learnt")),
        (export, (f"opening the export {export} on cpu",)),
    ):
        told: list[str] = []
        assert open_recommender(str(place), device="cpu", say=told.append)
        assert len(told) == len(words) and all(w in line for w, line in zip(words, told, strict=True))
    _say("run [red]x\x1b[2J")
    out, err = capsys.readouterr()
    assert out == "" and err == "run [red]x\ufffd[2J\n"


def test_a_search_in_a_log_says_now_and_then_how_far_it_is(
    capsys: pytest.CaptureFixture[str], histories: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bearray.serving.progress.EVERY_SECONDS", 0.0)
    monkeypatch.setattr("bearray.commands.recommend._CHUNK", 2)
    three = [option for h in histories[:3] for option in ("--history", "; ".join(h))]
    code, out, err = call(capsys, "--json", "--exact", *three)
    assert code == 0 and len(out.splitlines()) == 3
    lines = err.splitlines()
    assert lines[0] == "0 of 3 histories, 1 passes of the model"  # one long search is seen to go on
    assert lines[-1].startswith("3 of 3 histories") and any(line.startswith("2 of 3") for line in lines)


def test_a_bar_leaves_standard_output_alone(
    capsys: pytest.CaptureFixture[str], histories: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rich would send it to where the bar is, which `recommend --json > FILE` on a terminal would lose."""
    screen = io.StringIO()

    def terminal(**_: object) -> Console:
        return Console(file=screen, force_terminal=True, width=120, markup=False)

    monkeypatch.setattr("bearray.serving.progress.terminal", terminal)
    code, out, _ = call(capsys, "--json", "--history", histories[0][0])
    assert code == 0 and json.loads(out)["history"] == histories[0]
    assert "histories" in screen.getvalue() and "1/1" in screen.getvalue()
    assert "passes of the model" in screen.getvalue()
    assert "recommendations" not in screen.getvalue()


def test_item_ids_instead_of_titles(
    capsys: pytest.CaptureFixture[str], recommender: Recommender, tmp_path: Path
) -> None:
    items = [recommender.catalog.items_of_title[t][0] for t in (3, 4)]
    code, out, _ = call(capsys, "--json", "--item-ids", "--history", f"{items[0]}; {items[1]}")
    assert code == 0 and json.loads(out)["history"] == recommender.catalog.titles[3:5]
    (tmp_path / "h.jsonl").write_text(json.dumps({"history": items}))
    assert call(capsys, "--json", "--item-ids", "--histories", str(tmp_path / "h.jsonl"))[1] == out


def test_titles_that_the_catalogue_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "--history", "Some Other Film")
    assert code == 2 and "'Some Other Film' is not in the catalogue" in err and "--unknown-titles" in err
    code, out, _ = call(capsys, "--history", "Some Other Film", "--unknown-titles")
    assert code == 0 and "not in the catalogue: Some Other Film" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no history is given"),
        (("--history", " ; "), "--history: the history is empty"),
        (("--history", "x", "--node-budget", "3"), "give --exact, too"),
        (("--history", "1", "--k", "0", "--item-ids"), ""),
        (("--history", "a", "--item-ids"), "must hold item ids"),
        (("--history", "99999", "--item-ids"), "item 99999 is not in the catalogue"),
        (("--histories", "none.csv"), "none.csv does not exist"),
    ],
)
def test_mistakes_are_one_message_and_code_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = call(capsys, *arguments)
    assert code == 2 and err.startswith("error: ") and message in err and "Traceback" not in out + err


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("h.txt", b"x", DataError, r"end in \.csv, \.jsonl, \.ndjson"),
        ("h.csv", b"titles\nx\n", DataError, "has no column 'history'; it has titles"),
        ("h.csv", b"", DataError, "has no column 'history'; it has none"),
        ("h.csv", b"history\n", DataError, "holds no history"),
        ("h.csv", b"history,user\nx,1\n ,2\n", DataError, "line 3: the history is empty"),
        ("h.csv", b'history\n"x\n', DataError, "h.csv, line "),
        ("h.csv", b"history\n\xff\n", DataError, "is not UTF-8"),
        ("h.jsonl", b'{"history": ["a"]}\n{', DataError, "line 2 is not valid JSON"),
        ("h.jsonl", b'["a"]', DataError, "line 1 has no history"),
        ("h.jsonl", b'{"history": []}', DataError, "line 1 has no history"),
        ("h.jsonl", b'{"history": 3}', DataError, "line 1 has no history"),
        ("h.jsonl", b'{"history": ["\\ud800"]}', DataError, "line 1 is not valid JSON: .*half a character"),
        ("h.csv", None, MissingFileError, "does not exist"),
    ],
)
def test_files_that_cannot_be_read(
    tmp_path: Path, name: str, content: bytes | None, error: type[Exception], message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        read_histories(tmp_path / name)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "h.csv")
    with pytest.raises(DataError, match="is not a file"):
        read_histories(tmp_path / "h.csv")


@pytest.mark.parametrize("wrong", ["1e400", "2.5", "true", "null", '"x"', "9" * 5_000])
def test_item_ids_in_files_must_be_whole_numbers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, wrong: str
) -> None:
    (tmp_path / "h.jsonl").write_text(f'{{"history": [{wrong}]}}')
    code, out, err = call(capsys, "--item-ids", "--histories", str(tmp_path / "h.jsonl"))
    assert code == 2 and out == "" and "line 1" in err and len(err) < 400


def test_a_title_does_not_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], histories: list[list[str]]
) -> None:
    code, out, _ = call(capsys, "--unknown-titles", "--history", "\x1b[2J\u202eneuf")
    assert code == 0 and "\x1b" not in out and "\u202e" not in out and "\ufffd[2J\ufffdneuf" in out


def test_titles_in_files_must_be_text(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, histories: list[list[str]]
) -> None:
    (tmp_path / "h.jsonl").write_text(json.dumps({"history": histories[0]}) + '\n{"history": [3]}\n')
    code, out, err = call(capsys, "--histories", str(tmp_path / "h.jsonl"))
    assert code == 2 and out == "" and "line 2: a history must be a list of titles; for item ids" in err


def test_export_prints_the_folder(
    capsys: pytest.CaptureFixture[str], run_folder: Path, tmp_path: Path
) -> None:
    assert cli.run(["export", "--run", str(run_folder), "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "merging the adapter" in out and out.splitlines()[-1] == str(tmp_path / "out")
    assert cli.run(["export", "--run", str(run_folder), "--out", str(tmp_path / "out")]) == 2
    assert "exists and is not empty" in capsys.readouterr().err
