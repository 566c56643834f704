"""`bearray serve` as it is used: on Ray Serve, over HTTP, with the recommendations of the model."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import ray
from ray import serve

from bearray import cli
from bearray.errors import ModelError, ResourceError
from bearray.server import ServeOptions, serving
from bearray.serving import Recommender
from bearray.serving.recommender import plain
from bearray.serving.service import Limits

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def client(run_folder: Path, local_ray: None) -> Iterator[httpx.Client]:
    options = ServeOptions(
        place=str(run_folder), port=free_port(), limits=Limits(request_bytes=4_000), batch_wait=0.05
    )
    with serving(options) as trouble:
        assert trouble() is None
        with httpx.Client(base_url=options.address, timeout=120) as http:
            yield http
        with pytest.raises(ResourceError, match="already runs"), serving(options):
            pass
        assert trouble() is None
        ray.get(ray.remote(num_cpus=0)(serve.shutdown).remote())  # from elsewhere, as `serve shutdown` does
        with pytest.raises(ResourceError, match="the service is gone"):
            trouble()


def test_a_model_that_cannot_be_opened_says_why(tmp_path: Path, local_ray: None) -> None:
    (tmp_path / "bearray.json").write_text('{"format": 1}')
    with (
        pytest.raises(ModelError, match=r"the service did not start: .*is damaged"),
        serving(ServeOptions(place=str(tmp_path), port=free_port())),
    ):
        pass


def test_the_command_serves_until_interrupted(
    run_folder: Path,
    local_ray: None,
    histories: list[list[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a path as people type it, which means nothing where the replica runs."""
    monkeypatch.chdir(run_folder.parent)
    port, answers = free_port(), []

    def ask_then_interrupt() -> None:
        asked = {"json": {"history": histories[0], "k": 2}, "timeout": 120}
        until = time.monotonic() + 300
        try:
            while not answers and time.monotonic() < until:
                time.sleep(0.5)
                with contextlib.suppress(httpx.TransportError):  # it does not listen yet
                    found = httpx.post(f"http://127.0.0.1:{port}/recommend", **asked)
                    answers.extend([found.json()] if found.status_code == 200 else [])
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    asking = threading.Thread(target=ask_then_interrupt, daemon=True)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Ray Train leaves one of its own
    try:
        asking.start()
        code = cli.run(["serve", "--run", run_folder.name, "--port", str(port)])
        asking.join()
    finally:
        signal.signal(signal.SIGINT, before)
    out = capsys.readouterr().out
    assert code == 0 and len(answers[0]["recommendations"]) == 2
    assert "stopped" in out


def test_it_answers_what_the_model_recommends(
    client: httpx.Client, recommender: Recommender, histories: list[list[str]]
) -> None:
    for history, wanted in zip(histories, recommender.recommend(histories, k=3), strict=True):
        found = client.post("/recommend", json={"history": history, "k": 3})
        assert found.status_code == 200 and found.headers["content-type"] == "application/json"
        own, row = plain(wanted), found.json()
        assert row["history"] == own["history"] and row["proven_exact"] == own["proven_exact"]
        for mine, theirs in zip(row["recommendations"], own["recommendations"], strict=True):
            assert mine["title"] == theirs["title"] and mine["item_ids"] == theirs["item_ids"]
            assert mine["score"] == pytest.approx(theirs["score"], rel=1e-4)


def test_health_and_description(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    about = client.get("/").json()
    assert client.post("/recommend", json=about["example"]).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "not valid JSON"),
        (b"[" * 3_900, 400, "not valid JSON"),
        (b'{"history": ["\\ud800"]}', 400, "not valid Unicode"),
        (b'{"history": []}', 400, "0 titles"),
        (b'{"history": ["none such title"]}', 422, "not in the catalogue"),
        (b'{"history": ["' + b"x" * 5_000 + b'"]}', 413, "longer than 4,000 bytes"),
    ],
)
def test_errors_are_clear(client: httpx.Client, body: bytes, status: int, message: str) -> None:
    found = client.post("/recommend", content=body, headers={"content-type": "application/json"})
    assert found.status_code == status and message in found.json()["error"]


def test_only_json_is_taken(client: httpx.Client) -> None:
    assert client.post("/recommend", content=json.dumps({"history": ["x"]})).status_code == 415
    assert client.put("/recommend").status_code == 405 and client.get("/docs").status_code == 404
