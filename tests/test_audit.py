"""The dependency audit knows an answer from none: a service that knows nothing is not good news."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "audit.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = self.server.answer  # type: ignore[attr-defined]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    running = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("answer", "good"),
    [
        ((200, b'{"vulnerabilities": [{"id": "PYSEC-2014-8"}]}'), True),
        ((200, b'{"vulnerabilities": []}'), False),  # a mirror that knows of none
        ((200, b"{}"), False),
        ((200, b"[]"), False),
        ((200, b"<html>"), False),
        ((404, b""), False),
        ((503, b""), False),
    ],
)
def test_only_a_service_that_knows_old_faults_counts(
    script: dict[str, Any], server: HTTPServer, answer: tuple[int, bytes], good: bool
) -> None:
    server.answer = answer  # type: ignore[attr-defined]
    assert script["service_answers"](f"http://127.0.0.1:{server.server_port}/") is good


def test_no_connection_is_no_answer(script: dict[str, Any]) -> None:
    assert script["service_answers"]("http://127.0.0.1:9/", seconds=1.0) is False


def test_what_is_accepted_has_a_reason(script: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "accepted.txt"
    file.write_text("# note\n\nPYSEC-1  the parser is never called\n")
    assert script["accepted"](file) == ["PYSEC-1"]
    file.write_text("PYSEC-1\n")
    with pytest.raises(SystemExit, match="line 1: PYSEC-1 has no reason"):
        script["accepted"](file)
    script["accepted"]()  # the project's own


def test_what_is_installed_is_audited_and_pins_beyond_it(script: dict[str, Any], tmp_path: Path) -> None:
    pins = tmp_path / "constraints.txt"
    pins.write_text(
        "# note\nTorch==2.13.0\ncodecarbon==3.3.2\nold==1.0; python_version < '3'\nRuamel.Yaml==1.0  # why\n"
    )
    site = tmp_path / "site"
    for name, version in (("torch", "2.13.0+cpu"), ("not_pinned", "1.5"), ("bearray", "0.1.0")):
        folder = site / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    found = script["inventory"](distributions(path=[str(site)]), pins)
    assert found == ["codecarbon==3.3.2", "not-pinned==1.5", "ruamel-yaml==1.0", "torch==2.13.0"]
    here = script["inventory"](distributions())
    assert len(here) > 100 and any(line.startswith("pytest==") for line in here)


def test_an_audit_that_was_not_done_is_the_last_that_ci_says(
    script: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "not-done"
    monkeypatch.setenv("BEARRAY_NOT_DONE", str(file))
    script["not_done"]("no network")
    assert file.read_text() == "audit NOT done: no network\n" == capsys.readouterr().err
    folder = tmp_path / "clone"
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(SCRIPT.parent / "run", folder / ".ci" / "run")
    (folder / "bin").mkdir()
    for program in ("sshd", "rsync", "unshare", "apt-get"):  # so that nothing is installed
        (folder / "bin" / program).write_text("#!/bin/sh\nexit 1\n")
    (folder / "bin" / "make").write_text(
        '#!/bin/sh\necho "audit NOT done: x" >>"$BEARRAY_NOT_DONE"\nexit 7\n'
    )
    for program in (folder / "bin").iterdir():
        program.chmod(0o755)
    done = subprocess.run(
        ["bash", str(folder / ".ci" / "run")],
        env={"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "BEARRAY_CHROMIUM": "/bin/true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7 and done.stdout.splitlines()[-1] == "audit NOT done: x", done
