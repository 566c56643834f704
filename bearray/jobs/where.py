"""Where a job's results are."""

from __future__ import annotations

import re
import shlex

from bearray.errors import ConfigError
from bearray.runs import JOB_COPY

_SAID = re.compile(r"(?:sweep in|storage:) (\S.*?)\s*$", re.MULTILINE)


def storage_of(entrypoint: str, log: str, *, job: str = "JOB") -> str:
    """The storage of the sweep that a job runs.

    Args:
        entrypoint: the job's command line.
        log: what it has printed; a relative --storage, or none, is made absolute by what the sweep says.
        job: its id, for messages.

    Raises:
        ConfigError: neither says.
    """
    given = _option(entrypoint, "--storage")
    if given is not None and (given.startswith("/") or "://" in given):
        return given
    said = _SAID.findall(log)
    if said:
        return str(said[-1])
    raise ConfigError(
        f"job {job} has not said yet where its storage is, and its command ({entrypoint}) gives no absolute "
        "--storage; wait until it has begun, or give --storage here"
    )


def lost(storage: str) -> bool:
    """Whether a storage lies in a job's own copy of the working directory."""
    return JOB_COPY in storage


def _option(entrypoint: str, name: str) -> str | None:
    """An option's last value in a command line."""
    try:
        words = shlex.split(entrypoint)
    except ValueError:  # a quotation mark without its partner
        return None
    found = None
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word == name and after:
            found = after
        elif word.startswith(f"{name}="):
            found = word.partition("=")[2]
    return found
