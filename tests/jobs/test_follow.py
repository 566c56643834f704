"""A log is written once, whole and in order, however often the connection breaks."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from bearray.jobs import follow as following
from bearray.jobs.client import TunnelError

LOG = ["line 1\n", "line 2\nline 3\n", "line 4\n", "the end\n"]


class Cluster:
    """Connections that end after so many pieces of the log; None: that cannot be made."""

    def __init__(self, *ends: int | None) -> None:
        self.ends = list(ends)
        self.state = "RUNNING"

    def connect(self, address: str | None) -> Any:
        end = self.ends.pop(0) if self.ends else None
        if end is None:
            raise TunnelError("nothing answers")

        async def tail(job: str) -> AsyncIterator[str]:
            for piece in LOG[:end]:
                yield piece
            if end < len(LOG):
                raise RuntimeError("WebSocket connection closed unexpectedly")
            self.state = "SUCCEEDED"

        return SimpleNamespace(
            tail_job_logs=tail, get_job_info=lambda job: SimpleNamespace(status=self.state, submission_id=job)
        )


def follow(
    monkeypatch: pytest.MonkeyPatch, cluster: Cluster, patience: float = 60.0
) -> tuple[str, list[str], Any]:
    written: list[str] = []
    said: list[str] = []
    monkeypatch.setattr(following, "connect", cluster.connect)
    info = None
    with contextlib.suppress(TunnelError):
        info = following.follow("book-1", None, written.append, said.append, patience=patience, retry=0.0)
    return "".join(written), said, info


def test_without_a_break(monkeypatch: pytest.MonkeyPatch) -> None:
    written, said, info = follow(monkeypatch, Cluster(4))
    assert (written, said, info.status) == ("".join(LOG), [], "SUCCEEDED")


def test_it_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    written, said, info = follow(monkeypatch, Cluster(2, None, None, 1, 0, 4))
    assert written == "".join(LOG) and info.status == "SUCCEEDED"
    assert said.count("connected again") == 3


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    written, _, info = follow(monkeypatch, Cluster(2), patience=0.0)
    assert written == "".join(LOG[:2]) and info is None
    monkeypatch.setattr(following, "connect", Cluster(2).connect)
    with pytest.raises(TunnelError, match="bearray jobs logs book-1"):
        following.follow("book-1", None, print, print, patience=0.0, retry=0.0)


def test_the_first_connection_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "connect", Cluster(None, 4).connect)
    with pytest.raises(TunnelError, match="nothing answers"):
        following.follow("book-1", None, print, print, patience=60.0)
