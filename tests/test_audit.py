"""The dependency audit knows an answer from none: a service that knows nothing is not good news."""

from __future__ import annotations

import runpy
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
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
