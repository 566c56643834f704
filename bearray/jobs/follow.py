"""Follows a job's log through lost connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from bearray.jobs.client import ENDED, TunnelError, asked, connect, job_info, state

QUIET_SECONDS = 30.0
"""After so long without a line, ask whether the job goes on: a connection can die without a word."""
RETRY_SECONDS = 3.0


def follow(
    job: str,
    address: str | None,
    write: Callable[[str], None],
    say: Callable[[str], None],
    *,
    patience: float,
    retry: float = RETRY_SECONDS,
) -> Any:
    """Write a job's log as it grows, each line once, until the job ends.

    Args:
        job: its submission id. address: see `connect`.
        write: gets the log's text. say: gets what is to be said about the connection.
        patience: seconds for which a connection that is gone is waited for.
        retry: seconds between two trials.

    Returns:
        Ray's `JobDetails` of the ended job.

    Raises:
        TunnelError: the first connection fails, or one is not back in time.
        MissingFileError: there is no such job.
    """
    client = connect(address)
    job_info(client, job)
    written, gone = 0, None
    while True:
        try:
            if gone is not None:
                client = connect(address)
                info = job_info(client, job)
                say("connected again")
                gone = None
            written = asyncio.run(_tail(client, job, written, write))
            info = job_info(client, job)
            if state(info) in ENDED:
                return info
            time.sleep(min(retry, 1.0))  # the log ends a moment before the job does
        except _Cut as cut:
            written = cut.written
            gone = gone or time.monotonic()
            say("the connection to the cluster is gone; trying again")
        except TunnelError:
            gone = gone or time.monotonic()
        if gone is not None:
            if time.monotonic() - gone > patience:
                raise TunnelError(
                    f"the cluster has not answered for {patience:.0f} s; the job may go on there: forward "
                    "the port "
                    f"again, then bearray jobs logs {job}"
                )
            time.sleep(retry)


class _Cut(Exception):
    """The connection ended before the job did."""

    def __init__(self, written: int) -> None:
        super().__init__(written)
        self.written = written


async def _tail(client: Any, job: str, written: int, write: Callable[[str], None]) -> int:
    """Write what the log holds beyond its first `written` characters; how many are written in the end."""
    seen = 0
    try:
        async for text in _alive(client, job):
            new = text[max(0, written - seen) :]
            seen += len(text)
            if new:
                write(new)
                written += len(new)
    except (
        OSError,
        RuntimeError,
        TunnelError,
    ) as error:  # Ray's and aiohttp's; the caller looks what is wrong
        raise _Cut(written) from error
    return written


async def _alive(client: Any, job: str) -> AsyncIterator[str]:
    """Ray's own iterator over the log from its beginning, which ends, too, when the cluster no longer
    answers."""
    tail = client.tail_job_logs(job)
    while True:
        task = asyncio.ensure_future(anext(tail, None))
        while not (await asyncio.wait({task}, timeout=QUIET_SECONDS))[0]:
            await asyncio.to_thread(asked, lambda: client.get_job_info(job))
        text = task.result()
        if text is None:
            return
        yield text
