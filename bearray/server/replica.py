"""A copy of the model that answers HTTP requests in Ray Serve: `bearray.serving.Service` in its clothes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ray import serve
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from bearray.quiet import quiet_libraries
from bearray.serving import open_recommender
from bearray.serving.service import HttpError, Limits, Query, Reply, Service, refusal

STUCK_SECONDS = 600.0
"""A replica that decodes one batch for longer than this is taken for dead, and Serve starts another."""


class Replica:
    """Opens the model once, then answers requests; those that wait at the same time are decoded together.

    Args:
        place, data_dir, base_model: as `open_recommender`; read where the replica runs.
        limits: of requests.
        batch_size: requests decoded together at most.
        batch_wait: seconds that a request waits for others.
    """

    def __init__(
        self,
        place: str,
        data_dir: str | None,
        base_model: str | None,
        limits: Limits,
        batch_size: int,
        batch_wait: float,
    ) -> None:
        quiet_libraries()
        self.service = Service(open_recommender(place, data_dir=data_dir, base_model=base_model), limits)
        self._decoding_since: float | None = None
        batcher: Any = self.together  # the decorator gives it these methods
        batcher.set_max_batch_size(batch_size)
        batcher.set_batch_wait_timeout_s(batch_wait)

    async def __call__(self, request: Request) -> Response:
        """Any request."""
        reply = self.service.route(request.method, request.url.path, request.headers)
        if reply is None:
            reply = await self._recommend(request)
        return Response(
            reply.body,
            status_code=int(reply.status),
            headers=dict(reply.headers),
            media_type="application/json",
        )

    async def _recommend(self, request: Request) -> Reply:
        try:
            body = await self._body(request)
            query = await asyncio.to_thread(self.service.parse, body)
        except HttpError as error:
            return refusal(error.status, str(error))
        reply: Reply = await self.together(query)
        return reply

    async def _body(self, request: Request) -> bytes:
        """The body, read no further than a request may be long."""
        parts, size = [], 0
        try:
            async for part in request.stream():
                size += len(part)
                self.service.check_size(size)
                parts.append(part)
        except ClientDisconnect:
            return b""  # nobody waits for the answer
        return b"".join(parts)

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.01)
    async def together(self, queries: list[Query]) -> list[Reply]:
        """Answer queries in one go, beside the event loop, so that health checks are answered meanwhile."""
        self._decoding_since = time.monotonic()
        try:
            return await asyncio.to_thread(self.service.answer, queries)
        finally:
            self._decoding_since = None

    def check_health(self) -> None:
        """Called by Serve; an error means that the replica must be replaced."""
        since = self._decoding_since
        if since is not None and time.monotonic() - since > STUCK_SECONDS:
            raise RuntimeError(f"a batch has been decoding for more than {STUCK_SECONDS:g} s")
