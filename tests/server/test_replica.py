"""The replica without Ray: HTTP requests as a server hands them over (ASGI), batches, health."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

from bearray.server import replica as module
from bearray.server.replica import Replica
from bearray.serving import Recommender
from bearray.serving.recommender import plain
from bearray.serving.service import Limits

Ask = Callable[..., list[tuple[int, Any]]]
JSON = [(b"content-type", b"application/json")]


@pytest.fixture(scope="module")
def replica(recommender: Recommender) -> Iterator[Replica]:
    """One for all tests, as a process has one: Serve's batching keeps to the first event loop it sees."""
    # It asks how many requests may be under way, to warn where that is less than a batch.
    context = SimpleNamespace(_deployment_config=SimpleNamespace(max_ongoing_requests=64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "open_recommender", lambda place, **_: recommender)
        patch.setattr(module.serve, "get_replica_context", lambda: context)
        yield Replica("RUN", None, None, Limits(request_bytes=2_000), batch_size=8, batch_wait=0.05)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.fixture
def ask(replica: Replica, loop: asyncio.AbstractEventLoop) -> Ask:
    """(status, JSON) of requests that arrive together."""

    async def together(requests: tuple[Request, ...]) -> list[Any]:
        return await asyncio.gather(*(replica(one) for one in requests))

    def run(*requests: Request) -> list[tuple[int, Any]]:
        responses = loop.run_until_complete(together(requests))
        assert all(response.media_type == "application/json" for response in responses)
        return [(response.status_code, json.loads(bytes(response.body))) for response in responses]

    return run


def request(method: str, path: str, parts: list[bytes] | None = None, headers: Any = ()) -> Request:
    """As uvicorn would hand it over; None among the parts: the client is gone."""
    waiting = list(parts or [b""])

    async def receive() -> dict[str, Any]:
        assert waiting, "read beyond the end"
        part = waiting.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(waiting)}

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": list(headers),
        "server": ("127.0.0.1", 8000),
        "scheme": "http",
    }
    return Request(scope, receive)


def post(*fields: dict[str, Any]) -> list[Request]:
    return [request("POST", "/recommend", [json.dumps(f).encode()], JSON) for f in fields]


def test_requests_that_arrive_together_are_decoded_together(
    ask: Ask,
    replica: Replica,
    recommender: Recommender,
    histories: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []
    answer = replica.service.answer
    monkeypatch.setattr(
        replica.service, "answer", lambda queries: sizes.append(len(queries)) or answer(queries)
    )
    replies = ask(*post(*({"history": h, "k": 3} for h in histories)))
    assert sizes == [4]
    for (status, found), wanted in zip(replies, recommender.recommend(histories, k=3), strict=True):
        own = plain(wanted)
        assert status == 200 and found["history"] == own["history"]
        titles, others = ([r["title"] for r in row["recommendations"]] for row in (found, own))
        assert titles == others


def test_one_bad_request_does_not_harm_the_others(ask: Ask, histories: list[list[str]]) -> None:
    good, bad, unknown, good_too = ask(
        *post(
            {"history": histories[0]}, {"history": 3}, {"history": ["none such"]}, {"history": histories[1]}
        ),
    )
    assert [good[0], bad[0], unknown[0], good_too[0]] == [200, 400, 422, 200]
    assert "must be a list of titles" in bad[1]["error"] and "not in the catalogue" in unknown[1]["error"]


def test_a_long_body_is_not_read_to_its_end(ask: Ask) -> None:
    """Four parts of 1,000 bytes against a limit of 2,000: the fourth is never asked for."""
    parts = [b"x" * 1_000 for _ in range(4)]
    waiting: list[bytes] = []
    long = request("POST", "/recommend", parts, JSON)
    receive = long._receive

    async def counted() -> Any:
        message = await receive()
        waiting.append(message["body"])
        return message

    long._receive = counted
    assert ask(long)[0][0] == 413
    assert len(waiting) == 3


def test_routes(ask: Ask) -> None:
    health, about, nowhere, get = ask(
        request("GET", "/health"),
        request("GET", "/"),
        request("GET", "/x"),
        request("GET", "/recommend"),
    )
    assert health == (200, {"status": "ok"})
    assert about[1]["model"]["dataset"] == "demo" and about[1]["limits"]["request_bytes"] == 2_000
    assert (nowhere[0], get[0]) == (404, 405)


def test_health_is_answered_while_a_batch_is_decoded(
    replica: Replica,
    loop: asyncio.AbstractEventLoop,
    histories: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer, order = replica.service.answer, []

    def slow(queries: Any) -> Any:
        time.sleep(0.5)
        order.append("decoded")
        return answer(queries)

    monkeypatch.setattr(replica.service, "answer", slow)

    async def both() -> None:
        decoding = asyncio.create_task(replica(post({"history": histories[0]})[0]))
        await asyncio.sleep(0.2)
        replica.check_health()
        await replica(request("GET", "/health"))
        order.append("health")
        await decoding

    loop.run_until_complete(both())
    assert order == ["health", "decoded"]


def test_a_replica_that_is_stuck_is_not_well(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    replica.check_health()
    monkeypatch.setattr(replica, "_decoding_since", time.monotonic() - 5)
    replica.check_health()
    monkeypatch.setattr(module, "STUCK_SECONDS", 4.0)
    with pytest.raises(RuntimeError, match="decoding for more than 4 s"):
        replica.check_health()
