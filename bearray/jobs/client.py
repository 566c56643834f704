"""The way to a cluster's jobs: the dashboard's address and the token."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from bearray.errors import ConfigError, MissingFileError, ResourceError

DEFAULT = "http://127.0.0.1:8265"
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
"""States that a job does not leave."""

T = TypeVar("T")


class TunnelError(ResourceError):
    """The cluster cannot be reached just now."""


def dashboard_address(address: str | None) -> str:
    """The dashboard's address: the one given, else what Ray's own client would take, else `DEFAULT`.

    Raises:
        ConfigError: it is no address of a dashboard.
    """
    variables = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    named = {"--address": address} | {name: os.environ.get(name) for name in variables}
    name, text = next(((n, t) for n, t in named.items() if t), ("", DEFAULT))
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{name} is {text!r}; it must be the dashboard's address, such as {DEFAULT}")
    return text.rstrip("/")


def connect(address: str | None = None) -> Any:
    """A `ray.job_submission.JobSubmissionClient` of a cluster that answers.

    The token is sent wherever there is one (RAY_AUTH_MODE=token is set unless it says otherwise).

    Raises:
        ConfigError: the address is none, or the token is missing or another one than the cluster's.
        TunnelError: nothing answers there.
    """
    where = dashboard_address(address)
    _check_listening(where)
    if has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    from ray.job_submission import JobSubmissionClient

    logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)  # how a connection closed
    return asked(lambda: JobSubmissionClient(where))


def has_token() -> bool:
    """Whether there is a token where Ray looks for one."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return True
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser().is_file()


def _check_listening(where: str) -> None:
    """Ray's own client would try for half a minute."""
    parts = urlsplit(where)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((str(parts.hostname), port), timeout=10).close()
    except OSError as error:
        raise TunnelError(
            f"nothing answers at {where} ({error.strerror or error}). Forward the port of the cluster's "
            "dashboard "
            "first and leave that running: ray dashboard cluster/FILE.yaml, or ssh -N -L 8265:127.0.0.1:8265 "
            "USER@HEAD; another port is named by --address http://127.0.0.1:PORT"
        ) from error


def asked(question: Callable[[], T]) -> T:
    """What a client answers, with Ray's and the network's errors as ours.

    Raises:
        ConfigError: the token is missing or wrong.
        TunnelError: the connection is gone.
        MissingFileError: there is no such job.
        ResourceError: the cluster says no for another reason.
    """
    import requests
    from ray.exceptions import AuthenticationError

    try:
        return question()
    except AuthenticationError as error:
        raise ConfigError(
            f"the cluster refuses the token ({str(error).splitlines()[0]}). It must be the same in "
            "~/.ray/auth_token (or RAY_AUTH_TOKEN) here and on the cluster, and RAY_AUTH_MODE must not be "
            "disabled here: ray get-auth-token prints the one of this machine"
        ) from error
    except (ConnectionError, requests.exceptions.RequestException) as error:
        raise TunnelError(f"the connection to the cluster is gone: {error}") from error
    except RuntimeError as error:
        if "status code 404" in str(error):
            raise MissingFileError(
                "the cluster knows no such job; bearray jobs status lists those it has"
            ) from error
        raise ResourceError(f"the cluster says: {error}") from error


def job_info(client: Any, job: str) -> Any:
    """Ray's `JobDetails` of a job by its submission id.

    Raises:
        MissingFileError: there is none, and the message lists those that there are.
    """
    try:
        return asked(lambda: client.get_job_info(job))
    except MissingFileError as error:
        known = [i.submission_id for i in asked(client.list_jobs) if i.submission_id]
        raise MissingFileError(
            f"the cluster knows no job {job!r}; it has {', '.join(sorted(known)) or 'none'}"
        ) from error


def state(info: Any) -> str:
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    return str(getattr(info.status, "value", info.status))
