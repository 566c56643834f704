"""Recommendations over HTTP, apart from the server: what a request may be, and what it is answered.

`POST /recommend` takes JSON: {"history": ["title", ...]} or {"histories": [[...], ...]}, and the options k,
normalize, exclude_history, exact, unknown_titles. `GET /health` says whether the service is up, `GET /` what
it serves. Every answer is JSON; an error is {"error": "what is wrong and what would be right"}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from bearray.config import Normalize
from bearray.errors import BearrayError, ConfigError, DataError
from bearray.plain import encodable
from bearray.serving.recommender import Recommender, plain
from bearray.serving.titles import History

_OPTIONS = ("k", "normalize", "exclude_history", "exact", "unknown_titles")
_FIELDS = ("history", "histories", *_OPTIONS)
_SHOWN = 80
"""Characters of a wrong value that a message repeats."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may ask for; beyond it, it is refused before anything is computed."""

    request_bytes: int = 256 * 1024
    histories: int = 32
    titles: int = 200
    """In one history."""
    title_characters: int = 1_000
    k: int = 100
    exact_nodes: int | None = 20_000
    """Prefixes that exact search scores for one history at most (None: until it is proven)."""

    def __post_init__(self) -> None:
        for name in ("request_bytes", "histories", "titles", "title_characters", "k", "exact_nodes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"the limit {name} is {value}; it must be at least 1")


class HttpError(Exception):
    """A request that is refused; `status` is an HTTP status, 400 to 499."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Query:
    """A request that may be answered."""

    histories: tuple[History, ...]
    single: bool
    """It had one `history`, so its answer is one list."""
    k: int
    normalize: Normalize
    exclude_history: bool
    exact: bool

    @property
    def settings(self) -> tuple[Any, ...]:
        """Queries with equal settings are decoded together."""
        return self.k, self.normalize, self.exclude_history, self.exact


@dataclass(frozen=True)
class Reply:
    """Status, JSON value and extra headers of an answer."""

    status: HTTPStatus
    content: Any
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        # A path may hold halves of characters, and a refusal repeats it.
        return json.dumps(self.content, ensure_ascii=False, allow_nan=False).encode(errors="replace")


class Service:
    """Checks requests and answers them with a recommender.

    Args:
        recommender: what recommends. limits: what may be asked of it.
    """

    def __init__(self, recommender: Recommender, limits: Limits | None = None) -> None:
        self.recommender = recommender
        self.limits = limits or Limits()

    def route(self, method: str, path: str, headers: Mapping[str, str]) -> Reply | None:
        """The answer to all but a request for recommendations, for which it is None.

        Args:
            headers: of the request, names in small letters.
        """
        path = path.rstrip("/") or "/"
        allowed = {"/": "GET", "/health": "GET", "/recommend": "POST"}.get(path)
        if allowed is None:
            return refusal(
                HTTPStatus.NOT_FOUND, f"there is no {path[:_SHOWN]}; there are /recommend, /health and /"
            )
        if method != allowed and not (allowed == "GET" and method == "HEAD"):
            reply = refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} takes {allowed}, not {method[:_SHOWN]}")
            return Reply(reply.status, reply.content, {"Allow": allowed})
        if path == "/health":
            return Reply(HTTPStatus.OK, {"status": "ok"})
        if path == "/":
            return Reply(HTTPStatus.OK, self.about())
        try:
            self._check_headers(headers)
        except HttpError as error:
            return refusal(error.status, str(error))
        return None

    def about(self) -> dict[str, Any]:
        """What is served, and how to ask."""
        own, limits = self.recommender.decoding, self.limits
        return {
            "service": "bearray",
            "model": self.recommender.about,
            "defaults": {
                "k": self.default_k,
                "normalize": own.normalize,
                "exclude_history": own.exclude_history,
                "exact": own.method == "exact",
                "unknown_titles": False,
            },
            "limits": {
                "request_bytes": limits.request_bytes,
                "histories": limits.histories,
                "titles": limits.titles,
                "title_characters": limits.title_characters,
                "k": self.largest_k,
            },
            "example": {"history": list(self.recommender.catalog.titles[:2]), "k": self.default_k},
        }

    @property
    def largest_k(self) -> int:
        return min(self.limits.k, len(self.recommender.catalog))

    @property
    def default_k(self) -> int:
        return min(self.recommender.decoding.beam_width, self.largest_k)

    def _check_headers(self, headers: Mapping[str, str]) -> None:
        """Refuse what needs no reading. A page in a browser cannot send this type to another site unasked."""
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != "application/json":
            raise HttpError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"Content-Type is {kind[:_SHOWN]!r}; it must be application/json",
            )
        length = headers.get("content-length", "")
        if length.isascii() and length.isdigit():
            self.check_size(int(length[:18]))

    def check_size(self, size: int) -> None:
        """Raises HttpError (413) for a body of more bytes than a request may have."""
        if size > self.limits.request_bytes:
            raise HttpError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the request is longer than {self.limits.request_bytes:,} bytes",
            )

    def parse(self, body: bytes) -> Query:
        """A request's body as a query, checked.

        Raises:
            HttpError: 400 for what is no JSON or has a wrong field, 413 for what is too long, 422 for titles
                that the catalogue does not hold.
        """
        self.check_size(len(body))
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or brackets without end
            raise _wrong(f"the request is not valid JSON: {str(error)[:_SHOWN]}") from error
        if not isinstance(asked, dict):
            raise _wrong('the request must be a JSON object such as {"history": ["first title"]}')
        strange = sorted(set(asked) - set(_FIELDS))
        if strange:
            raise _wrong(f"unknown field {strange[0][:_SHOWN]!r}; there are {', '.join(_FIELDS)}")
        if ("history" in asked) == ("histories" in asked):
            raise _wrong('give either "history" (a list of titles) or "histories" (a list of such lists)')
        own = self.recommender.decoding
        single = "history" in asked
        texts = self._texts([asked["history"]] if single else asked["histories"], single=single)
        normalize = asked.get("normalize", own.normalize)
        if normalize not in ("trie", "full"):
            raise _wrong(f'normalize is {_short(normalize)}; it must be "trie" or "full"')
        allow_unknown = _flag(asked, "unknown_titles", False)
        return Query(
            single=single,
            k=self._k(asked.get("k")),
            normalize=normalize,
            exclude_history=_flag(asked, "exclude_history", own.exclude_history),
            exact=_flag(asked, "exact", own.method == "exact"),
            histories=tuple(self._look_up(texts, allow_unknown=allow_unknown)),
        )

    def _k(self, k: Any) -> int:
        if k is None:
            return self.default_k
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= self.largest_k:
            raise _wrong(f"k is {_short(k)}; it must be a whole number between 1 and {self.largest_k}")
        return k

    def _texts(self, histories: Any, *, single: bool) -> list[list[str]]:
        limits = self.limits
        if not isinstance(histories, list) or not histories:
            raise _wrong('"histories" must be a list of lists of titles, not empty')
        if len(histories) > limits.histories:
            raise _wrong(f"there are {len(histories)} histories; at most {limits.histories} are taken")
        for number, titles in enumerate(histories, 1):
            name = "history" if single else f"history {number}"
            if not isinstance(titles, list) or not all(isinstance(title, str) for title in titles):
                raise _wrong(f"{name} must be a list of titles (strings)")
            if not 1 <= len(titles) <= limits.titles:
                raise _wrong(f"{name} has {len(titles)} titles; it must have 1 to {limits.titles}")
            longest = max(map(len, titles))
            if longest > limits.title_characters:
                raise _wrong(
                    f"{name} has a title of {longest} characters; at most {limits.title_characters} are taken"
                )
            if any(not encodable(title) for title in titles):
                raise _wrong(f"{name} has a title that is not valid Unicode")
        return histories

    def _look_up(self, texts: Sequence[Sequence[str]], *, allow_unknown: bool) -> list[History]:
        try:
            return [self.recommender.titles.history(t, allow_unknown=allow_unknown) for t in texts]
        except DataError as error:
            hint = '; or send "unknown_titles": true' if "not in the catalogue" in str(error) else ""
            raise HttpError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{error}{hint}") from error

    def answer(self, queries: Sequence[Query]) -> list[Reply]:
        """Answers in the queries' order; those with equal settings are decoded together."""
        replies: dict[int, Reply] = {}
        for settings in dict.fromkeys(query.settings for query in queries):
            places = [i for i, query in enumerate(queries) if query.settings == settings]
            for place, reply in zip(places, self._together([queries[i] for i in places]), strict=True):
                replies[place] = reply
        return [replies[i] for i in range(len(queries))]

    def _together(self, queries: Sequence[Query]) -> list[Reply]:
        first = queries[0]
        try:
            found = self.recommender.recommend_known(
                [history for query in queries for history in query.histories],
                k=first.k,
                normalize=first.normalize,
                exclude_history=first.exclude_history,
                exact=first.exact,
                node_budget=self.limits.exact_nodes if first.exact else None,
            )
        except BearrayError as error:
            return [refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))] * len(queries)
        lists = iter([plain(row, item_limit=self.limits.k) for row in found])
        replies = []
        for query in queries:
            mine = [next(lists) for _ in query.histories]
            replies.append(Reply(HTTPStatus.OK, mine[0] if query.single else {"lists": mine}))
        return replies


def refusal(status: HTTPStatus, message: str) -> Reply:
    """An error as an answer."""
    return Reply(status, {"error": message})


def _wrong(message: str) -> HttpError:
    return HttpError(HTTPStatus.BAD_REQUEST, message)


def _flag(asked: Mapping[str, Any], name: str, default: bool) -> bool:
    value = asked.get(name, default)
    if not isinstance(value, bool):
        raise _wrong(f"{name} is {_short(value)}; it must be true or false")
    return value


def _short(value: Any) -> str:
    """A wrong value for a message."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
