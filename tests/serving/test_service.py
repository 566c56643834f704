"""Requests over HTTP without a server: what is refused and why, what is answered."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bearray.errors import ConfigError
from bearray.serving import Recommender
from bearray.serving.recommender import plain
from bearray.serving.service import HttpError, Limits, Service

JSON = {"content-type": "application/json; charset=utf-8"}
LIMITS = Limits(request_bytes=4_000, histories=3, titles=5, title_characters=100, k=6)


@pytest.fixture(scope="module")
def service(recommender: Recommender) -> Service:
    return Service(recommender, LIMITS)


def asked(service: Service, **fields: Any) -> Any:
    (reply,) = service.answer([service.parse(json.dumps(fields).encode())])
    return json.loads(reply.body)


def test_an_answer_is_the_recommenders(service: Service, histories: list[list[str]]) -> None:
    (own,) = service.recommender.recommend(histories[:1], k=3)
    assert asked(service, history=histories[0], k=3) == plain(own)
    both = service.recommender.recommend(histories[:2], normalize="full", exclude_history=True)
    answer = asked(service, histories=histories[:2], normalize="full", exclude_history=True)
    assert answer == {"lists": [plain(row) for row in both]}


def test_a_path_with_half_a_character(service: Service) -> None:
    reply = service.route("GET", "/\ud800", {})
    assert reply is not None and reply.status == 404 and json.loads(reply.body)["error"]


def test_exact_search_is_bounded(recommender: Recommender, histories: list[list[str]]) -> None:
    free = Service(recommender, Limits(exact_nodes=None))
    assert asked(free, history=histories[0], exact=True)["proven_exact"]
    assert not asked(Service(recommender, Limits(exact_nodes=1)), history=histories[0], exact=True)[
        "proven_exact"
    ]


def test_requests_that_wait_together_get_their_own_answers(
    service: Service, histories: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fields: list[dict[str, Any]] = [
        {"history": histories[0], "k": 2},
        {"histories": histories[1:3], "k": 3},
        {"history": histories[3], "k": 2},
        {"history": histories[0], "k": 2, "normalize": "full"},
    ]
    alone = [asked(service, **f) for f in fields]
    calls = []
    real = service.recommender.recommend_known

    def counted(found: Any, **options: Any) -> Any:
        calls.append(len(found))
        return real(found, **options)

    monkeypatch.setattr(service.recommender, "recommend_known", counted)
    together = service.answer([service.parse(json.dumps(f).encode()) for f in fields])
    assert calls == [2, 2, 1]
    for reply, one in zip(together, alone, strict=True):
        got = json.loads(reply.body)
        for mine, own in zip(got.get("lists", [got]), one.get("lists", [one]), strict=True):
            assert mine["history"] == own["history"]
            titles, others = ([r["title"] for r in x["recommendations"]] for x in (mine, own))
            assert titles == others


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "not valid JSON"),
        (b"\xff\xfe\x00", 400, "not valid JSON"),
        (b"[" * 3_000, 400, "not valid JSON"),
        (b'{"k": ' + b"9" * 3_900 + b"}", 400, ""),
        (b"[]", 400, "must be a JSON object"),
        (b"null", 400, "must be a JSON object"),
        (b"x" * 5_000, 413, "longer than 4,000 bytes"),
        (b"{}", 400, 'give either "history"'),
        (b'{"history": ["a"], "histories": [["a"]]}', 400, 'give either "history"'),
        (b'{"history": ["a"], "n": 3}', 400, "unknown field 'n'; there are history, histories, k"),
        (b'{"history": "a; b"}', 400, "history must be a list of titles"),
        (b'{"history": [1]}', 400, "history must be a list of titles"),
        (b'{"history": null}', 400, "history must be a list of titles"),
        (b'{"history": []}', 400, "has 0 titles; it must have 1 to 5"),
        (b'{"history": ["a","a","a","a","a","a"]}', 400, "has 6 titles"),
        (b'{"history": ["' + b"a" * 101 + b'"]}', 400, "a title of 101 characters; at most 100"),
        (b'{"histories": []}', 400, "not empty"),
        (b'{"histories": ["a"]}', 400, "history 1 must be a list"),
        (b'{"histories": [["a"],["a"],["a"],["a"]]}', 400, "there are 4 histories; at most 3"),
        (b'{"history": ["\\ud800"], "unknown_titles": true}', 400, "not valid Unicode"),
        (b'{"history": [" "], "unknown_titles": true}', 422, "title 1 of the history is empty"),
        (b'{"history": ["no such title"]}', 422, "'no such title' is not in the catalogue"),
    ],
)
def test_what_is_refused(service: Service, body: bytes, status: int, message: str) -> None:
    with pytest.raises(HttpError) as refused:
        service.parse(body)
    assert refused.value.status == status and message in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("k", 0, "k is 0; it must be a whole number between 1 and 6"),
        ("k", 7, "between 1 and 6"),
        ("k", 2.5, "k is 2.5"),
        ("k", True, "k is true"),
        ("k", "3", 'k is "3"'),
        ("k", [1] * 300, "..."),
        ("normalize", "softmax", 'normalize is "softmax"; it must be "trie" or "full"'),
        ("normalize", {}, "normalize is {}"),
        ("exact", 1, "exact is 1; it must be true or false"),
        ("exclude_history", None, "exclude_history is null"),
        ("unknown_titles", "yes", 'unknown_titles is "yes"'),
    ],
)
def test_options_that_cannot_work(service: Service, field: str, value: Any, message: str) -> None:
    history = service.recommender.catalog.titles[:1]
    with pytest.raises(HttpError) as refused:
        service.parse(json.dumps({"history": history, field: value}).encode())
    assert refused.value.status == 400 and message in str(refused.value)
    assert len(str(refused.value)) < 400


def test_an_unknown_title_brings_suggestions_and_may_be_allowed(service: Service) -> None:
    title = service.recommender.catalog.titles[3]
    typed = title[:-1] + title[-1].swapcase()
    with pytest.raises(HttpError, match=r'did you mean.*or send "unknown_titles": true') as refused:
        service.parse(json.dumps({"history": [typed]}).encode())
    assert repr(title) in str(refused.value)
    answer = asked(service, history=[typed], unknown_titles=True)
    assert answer["unknown_titles"] == [typed] and answer["recommendations"]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=6,
)
FIELDS = st.dictionaries(
    st.sampled_from(["history", "histories", "k", "normalize", "exact", "unknown_titles", "other"]),
    JSON_VALUES | st.lists(st.lists(st.text(max_size=5), max_size=3), max_size=4),
)


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=60) | FIELDS.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_query_or_a_refusal(recommender: Recommender, body: bytes) -> None:
    try:
        query = Service(recommender, LIMITS).parse(body)
    except HttpError as error:
        assert 400 <= error.status < 500 and str(error)
    else:
        assert 1 <= query.k <= 6 and 1 <= len(query.histories) <= 3


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "message"),
    [
        ("GET", "/nowhere", {}, 404, "there is no /nowhere; there are /recommend"),
        ("GET", "/" + "x" * 5_000, {}, 404, "there is no"),
        ("GET", "/recommend", {}, 405, "takes POST, not GET"),
        ("POST", "/health", JSON, 405, "takes GET, not POST"),
        ("POST", "/recommend", {}, 415, "must be application/json"),
        ("POST", "/recommend", {"content-type": "text/plain"}, 415, "'text/plain'"),
        ("POST", "/recommend", JSON | {"content-length": "5000"}, 413, "longer than 4,000 bytes"),
        ("POST", "/recommend", JSON | {"content-length": "9" * 6_000}, 413, "longer than"),
    ],
)
def test_routes_that_are_refused(
    service: Service, method: str, path: str, headers: dict[str, str], status: int, message: str
) -> None:
    reply = service.route(method, path, headers)
    assert reply is not None and reply.status == status
    assert message in json.loads(reply.body)["error"] and len(reply.body) < 400
    assert status != 405 or reply.headers["Allow"] in ("GET", "POST")


def test_routes(service: Service) -> None:
    assert service.route("POST", "/recommend", JSON) is None
    assert service.route("POST", "/recommend/", JSON | {"content-length": "12"}) is None
    health = service.route("GET", "/health", {})
    assert health is not None and (health.status, health.content) == (HTTPStatus.OK, {"status": "ok"})
    page = service.route("GET", "/", {})
    assert page is not None and page.status == HTTPStatus.OK
    about = json.loads(page.body)
    assert about["model"]["method"] == "BEAR" and about["limits"]["k"] == 6 and about["defaults"]["k"] == 4
    assert asked(service, **about["example"])["recommendations"]


@pytest.mark.parametrize("name", ["request_bytes", "histories", "titles", "title_characters", "k"])
def test_limits_are_checked(name: str) -> None:
    with pytest.raises(ConfigError, match=f"the limit {name} is 0"):
        Limits(**{name: 0})
