"""The PDF: printed where there is a browser, and otherwise said in one line that there is none, and why."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from bearray.paper.document import pdf
from bearray.paper.document.pdf import VARIABLE, find_browser, write_pdf
from bearray.paper.document.write import write_document
from tests.paper.storage import DEMO, paper_config, write_method

PAGE = "<html><body><h1>A page</h1><p style='break-before: page'>Another one</p></body></html>"


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "page.html").write_text(PAGE)
    return tmp_path / "page.html"


@pytest.mark.browser
def test_the_same_page_gives_the_same_pdf(page: Path, tmp_path: Path) -> None:
    for name in ("a.pdf", "b.pdf"):
        assert write_pdf(page, tmp_path / name) is None
        time.sleep(1.1)  # dates in a PDF are in seconds
    first = (tmp_path / "a.pdf").read_bytes()
    assert first.startswith(b"%PDF-") and len(re.findall(rb"/Type\s*/Page\b", first)) == 2
    assert first == (tmp_path / "b.pdf").read_bytes()


def test_without_a_browser_a_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    assert find_browser() is None
    write_method(tmp_path / "s", DEMO, "sft", 0.2)
    (tmp_path / "s" / "paper").mkdir()
    (tmp_path / "s" / "paper" / "paper.pdf").write_text("of an older document")
    index = write_document(paper_config(tmp_path / "s", table=(2,)))
    said = capsys.readouterr().err.splitlines()
    assert said == [f"no paper.pdf: no Chromium or Chrome on the path; install one, or set {VARIABLE}"]
    assert not (index.parent / "paper.pdf").exists() and index.exists()


def test_a_browser_that_fails_is_quoted(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = script(page.parent / "broken", "echo first >&2; echo 'cannot open display' >&2; exit 3")
    monkeypatch.setenv(VARIABLE, asked)
    assert write_pdf(page, page.parent / "out.pdf") == f"{asked} made none: cannot open display"
    assert not (page.parent / "out.pdf").exists()
    monkeypatch.setenv(VARIABLE, str(page.parent / "nowhere"))
    assert "No such file" in str(write_pdf(page, page.parent / "out.pdf"))


def test_a_browser_that_hangs_is_ended_with_its_helpers(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = page.parent / "helper"
    asked = script(page.parent / "hangs", f"sleep 600 & echo $! > {helper}; wait")
    monkeypatch.setenv(VARIABLE, asked)
    assert write_pdf(page, page.parent / "out.pdf", limit_s=3) == (
        f"{asked} made none: it took longer than 3 seconds"
    )
    number = int(helper.read_text())
    for _ in range(300):
        if not _alive(number):
            return
        time.sleep(0.1)
    os.kill(number, signal.SIGKILL)
    pytest.fail("the helper lives on")


def _alive(number: int) -> bool:
    state = Path(f"/proc/{number}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(("user", "flag"), [(0, True), (1000, False)])
def test_only_root_goes_without_the_sandbox(
    page: Path, monkeypatch: pytest.MonkeyPatch, user: int, flag: bool
) -> None:
    told = page.parent / "told"
    monkeypatch.setenv(VARIABLE, script(page.parent / "notes", f'echo "$@" > {told}'))
    monkeypatch.setattr(pdf.os, "geteuid", lambda: user)
    assert write_pdf(page, page.parent / "out.pdf") is not None
    assert ("--no-sandbox" in told.read_text().split()) is flag
    assert page.absolute().as_uri() in told.read_text()
