"""Looking after a service, without one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve
from ray.exceptions import ActorDiedError, ActorUnavailableError

from bearray import cli
from bearray.errors import ResourceError
from bearray.server import start, watch

State = str | None


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    monkeypatch.setattr("bearray.server.watching.time.sleep", lambda seconds: None)
    yield []


def states(found: Iterable[State]) -> Callable[[], State]:
    """One after the other, then Ctrl-C."""
    left = iter(found)

    def trouble() -> State:
        for state in left:
            return state
        raise KeyboardInterrupt

    return trouble


def test_changes_are_said_once_until_interrupted(told: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        watch(states([None, "x", "x", "y", None, None]), told.append)
    assert told == [
        "the service is not well: x",
        "the service is not well: y",
        "the service is well again",
    ]


def test_it_ends_when_the_service_is_not_well_for_too_long(told: list[str]) -> None:
    asked = []

    def trouble() -> State:
        asked.append(1)
        # well for one poll in between: it starts to count anew
        return None if len(asked) == 150 else "UNHEALTHY: no room"

    with pytest.raises(ResourceError, match=r"not been well for 15 minutes and is stopped: UNHEALTHY: no"):
        watch(trouble, told.append)
    assert len(asked) == 150 + 181


def fake_status(monkeypatch: pytest.MonkeyPatch, found: Any) -> None:
    def status() -> Any:
        if isinstance(found, Exception):
            raise found
        return SimpleNamespace(applications=found)

    monkeypatch.setattr(serve, "status", status)


def application(status: str, message: str = "") -> Any:
    return SimpleNamespace(status=SimpleNamespace(value=status), message=message)


def test_what_ray_serve_says_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, wanted in (
        (application("RUNNING"), None),
        (application("UNHEALTHY"), "UNHEALTHY: no reason was given"),
        (application("DEPLOYING", "1 replica"), "DEPLOYING: 1 replica"),
    ):
        fake_status(monkeypatch, {start.APPLICATION: found})
        assert start._trouble() == wanted
    fake_status(monkeypatch, ActorUnavailableError("the node\nis slow", b"1" * 16))
    assert str(start._trouble()).startswith("its controller does not answer: ")


@pytest.mark.parametrize("found", [{}, {"another": application("RUNNING")}, ActorDiedError()], ids=repr)
def test_a_service_that_somebody_has_shut_down_ends_the_command(
    monkeypatch: pytest.MonkeyPatch, told: list[str], found: Any
) -> None:
    fake_status(monkeypatch, found)
    with pytest.raises(ResourceError, match=r"the service is gone: .*serve shutdown"):
        watch(start._trouble, told.append)
    assert told == []


def test_a_reason_is_given_though_the_controller_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_status(monkeypatch, ActorDiedError())
    assert start._why(RuntimeError("first\nModelError: no such model\n")) == "ModelError: no such model"


@pytest.mark.parametrize(
    ("found", "code", "last"),
    [
        ([None, None], 0, "stopped"),  # Ctrl-C
        ([None, ResourceError("the service is gone: x")], 2, "error: the service is gone: x"),
    ],
)
def test_the_command_ends_with_the_service_and_says_how(
    monkeypatch: pytest.MonkeyPatch,
    told: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    found: list[Any],
    code: int,
    last: str,
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "bearray.json").write_text('{"format": 1}')
    monkeypatch.chdir(tmp_path)
    served: list[Any] = []
    state = states(found)

    def trouble() -> State:
        now = state()
        if isinstance(now, Exception):
            raise now
        return now

    @contextmanager
    def serving(options: start.ServeOptions) -> Iterator[Callable[[], State]]:
        try:
            served.append(options.place)
            yield trouble
        finally:
            served.append("shut down")

    monkeypatch.setattr("bearray.server.serving", serving)
    monkeypatch.setattr("bearray.tuning.cluster.connect", lambda: None)
    monkeypatch.setenv("RAY_ADDRESS", "another:1")  # then no port is tried here
    assert cli.run(["serve", "--run", "runs"]) == code
    out, err = capsys.readouterr()
    assert (out + err).rstrip().endswith(last) and "curl -s http://127.0.0.1:8000/" in out
    assert served == [str(tmp_path / "runs"), "shut down"]
