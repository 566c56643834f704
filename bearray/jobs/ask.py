"""Asks the cluster's head something by a small job of its own, which needs no more than a job does: the
dashboard's address and the token."""

from __future__ import annotations

import functools
import json
import shlex
import time
import uuid
from contextlib import suppress
from typing import Any

from bearray.errors import MissingFileError, ResourceError
from bearray.jobs.answer import MARK
from bearray.jobs.client import ENDED, asked, state

PATIENCE = 300.0
"""Seconds within which a head answers, busy as it may be."""
PREFIX = "bearray-ask-"
"""Of the submission ids of such jobs."""
_POLL = 1.0
_OLD_SECONDS = 60.0
"""Ray looks after a job for some time after its end, and enters one anew that is deleted at once."""


def ask(client: Any, *question: str) -> Any:
    """What `bearray.jobs.answer` says to a question, on the head.

    It takes no CPU of the cluster and uses the head's own installation of bearray (that of the last
    `ray up`, or the image's). The next question deletes it from the list of jobs.

    Raises:
        ResourceError: it failed or did not answer in `PATIENCE` seconds.
    """
    job = asked(
        lambda: client.submit_job(
            entrypoint=shlex.join(["python", "-m", "bearray.jobs.answer", *question]),
            submission_id=f"{PREFIX}{question[0]}-{uuid.uuid4().hex[:8]}",
        )
    )
    until = time.monotonic() + PATIENCE
    while (now := state(asked(lambda: client.get_job_info(job)))) not in ENDED:
        if time.monotonic() > until:
            asked(lambda: client.stop_job(job))
            raise ResourceError(
                f"the head has not answered within {PATIENCE:.0f} s; ray job logs {job} may say why"
            )
        time.sleep(_POLL)
    log = asked(lambda: client.get_job_logs(job))
    if now != "SUCCEEDED":
        last = "; ".join(log.strip().splitlines()[-2:])
        raise ResourceError(
            f"the head cannot answer, as its bearray is missing or another one: {last}. `ray up` again "
            "installs this "
            "one there; where storage can be read from here, --storage alone asks nobody"
        )
    _tidy(client)
    return answer_in(log)


def _tidy(client: Any) -> None:
    """Delete what earlier questions left."""
    for info in asked(client.list_jobs):
        name, ended = info.submission_id or "", info.end_time
        if name.startswith(PREFIX) and ended and time.time() - ended / 1000 > _OLD_SECONDS:
            with suppress(ResourceError, MissingFileError):  # another one was faster
                asked(functools.partial(client.delete_job, name))


def answer_in(log: str) -> Any:
    """The answer in a job's log, among whatever else was printed.

    Raises:
        ResourceError: there is none.
    """
    found = [line.removeprefix(MARK) for line in log.splitlines() if line.startswith(MARK)]
    if not found:
        raise ResourceError(
            f"the head's answer holds no line with {MARK!r}; it has another version of bearray"
        )
    return json.loads(found[-1])
