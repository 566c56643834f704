"""The way to a cluster, with a dashboard that says no in each of the ways there are."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bearray import cli
from bearray.errors import BearrayError, ConfigError, MissingFileError
from bearray.jobs.answer import demands
from bearray.jobs.ask import answer_in
from bearray.jobs.client import TunnelError, connect, dashboard_address, has_token, job_info

VARIABLES = (
    "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE",
)  # fmt: skip
VERSION = b'{"version": "4", "ray_version": "2.60.0", "ray_commit": "x"}'


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without a cluster and a token."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # this process keeps what Ray has read once


Dashboard = Callable[[dict[str, tuple[int, bytes]]], str]


@pytest.fixture
def dashboard() -> Iterator[Dashboard]:
    """Starts a server that answers paths with (status, body), and anything else with 404; its address."""
    servers: list[ThreadingHTTPServer] = []

    def start(answers: dict[str, tuple[int, bytes]]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answers.get(self.path, (404, b"does not exist"))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_address_that_rays_own_client_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dashboard_address(None) == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "http://a:1")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://b:2/")
    assert dashboard_address(None) == "http://b:2"
    assert dashboard_address("https://c") == "https://c"


@pytest.mark.parametrize("text", ["127.0.0.1:8265", "ray://head:10001", "auto"])
def test_what_is_no_dashboard(text: str) -> None:
    with pytest.raises(ConfigError, match="--address"):
        dashboard_address(text)


def test_nothing_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(TunnelError, match=r"ray dashboard cluster/FILE\.yaml"):
        connect(f"http://127.0.0.1:{port}")


def test_a_token_is_found_where_ray_looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not has_token()
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret", encoding="utf-8")
    assert has_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "elsewhere"))
    assert not has_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert has_token()


@pytest.mark.parametrize("code", [401, 403])
def test_no_token_or_another_one(dashboard: Dashboard, code: int) -> None:
    address = dashboard({"/api/version": (code, b"Unauthorized: Missing authentication token")})
    with pytest.raises(ConfigError, match=r"refuses the token.*~/\.ray/auth_token"):
        connect(address)


def test_an_unknown_job(dashboard: Dashboard) -> None:
    client = connect(dashboard({"/api/version": (200, VERSION), "/api/jobs/": (200, b"[]")}))
    with pytest.raises(MissingFileError, match=r"no job 'book-1'; it has none"):
        job_info(client, "book-1")


@pytest.mark.parametrize(
    "arguments", [["status"], ["status", "x"], ["logs", "x"], ["logs", "x", "--no-follow"], ["fetch", "x"]]
)
def test_every_command_says_it_in_one_message(
    arguments: list[str], dashboard: Dashboard, capsys: pytest.CaptureFixture[str]
) -> None:
    address = dashboard({"/api/version": (401, b"Unauthorized")})
    assert cli.run(["jobs", *arguments, "--address", address]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the cluster refuses the token") and "Traceback" not in error


@pytest.mark.parametrize(
    ("command", "message"),
    [("logs", "JOB"), ("fetch", "error: fetch what? Give a job's submission id, or --storage")],
)
def test_a_job_must_be_named(command: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["jobs", command]) == 2
    assert message in capsys.readouterr().err


STATUS = """
Resources
---------------------------------------------------------------
Total Usage:
 2.0/2.0 CPU
Total Constraints:
 (no request_resources() constraints)
Total Demands:
 {'CPU': 1.0} * 2 (PACK): 1+ pending placement groups
 {'GPU': 1.0}: 3+ pending tasks/actors

Node: x
"""


def test_what_tasks_wait_for() -> None:
    assert demands(STATUS) == [
        "{'CPU': 1.0} * 2 (PACK): 1+ pending placement groups",
        "{'GPU': 1.0}: 3+ pending tasks/actors",
    ]
    assert demands("Demands:\n (no resource demands)\n") == []
    assert demands("no cluster status. It may take a few seconds\n") == []


def test_an_answer_among_other_lines() -> None:
    assert answer_in('a warning\nbearray-answer: {"x": [1]}\nbye\n') == {"x": [1]}
    with pytest.raises(BearrayError, match="another version"):
        answer_in("a warning\n")
