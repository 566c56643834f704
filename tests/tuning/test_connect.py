"""A cluster that does not answer is a line of text that names it; without Ray."""

from __future__ import annotations

from typing import Any

import pytest
from ray.exceptions import AuthenticationError

from bearray.errors import ResourceError
from bearray.tuning import cluster


def _refused(cause: Exception | None, error: Exception) -> Any:
    def init(**_: Any) -> None:
        raise error from cause

    return init


@pytest.mark.parametrize(
    ("cause", "error", "told"),
    [
        (None, ConnectionError("Failed to connect to Ray cluster at 127.0.0.1:1"), "Failed to connect"),
        (AuthenticationError("InvalidAuthToken: missing"), ConnectionError("Failed"), "InvalidAuthToken"),
        (None, AuthenticationError("InvalidAuthToken: missing"), "InvalidAuthToken"),
    ],
)
def test_a_cluster_that_does_not_answer(
    cause: Exception | None, error: Exception, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", _refused(cause, error))
    with pytest.raises(
        ResourceError, match=rf"Ray cluster at .*:1, which RAY_ADDRESS names.*{told}"
    ) as raised:
        cluster.connect()
    assert "\n" not in str(raised.value)
