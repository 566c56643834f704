"""What is checked before a model is served; no Ray is started."""

from __future__ import annotations

import importlib
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bearray.errors import ConfigError, MissingFileError, ResourceError
from bearray.server import ServeOptions, check_can_serve, serving, start
from bearray.serving.opening import EXPORT


@pytest.fixture
def export(tmp_path: Path) -> str:
    (tmp_path / EXPORT).write_text('{"format": 1}')
    return str(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"port": 0}, "port is 0; it must be between 1 and 65535"),
        ({"port": 70_000}, "port is 70000"),
        ({"replicas": 0}, "replicas is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"cpus": 0}, "cpus must be above 0"),
        ({"batch_wait": -1}, "batch_wait 0 or more"),
    ],
)
def test_options_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ServeOptions(place="x", **changes)


def test_relative_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica runs in another folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    here = ServeOptions(place="runs/a", data_dir="../data", base_model="base")
    assert here.place == f"{tmp_path}/runs/a" and here.data_dir == f"{tmp_path.parent}/data"
    assert here.base_model == f"{tmp_path}/base"
    assert ServeOptions(place="x", base_model="./gone").base_model == f"{tmp_path}/gone"
    there = ServeOptions(place="s3://b/runs/a", data_dir="gs://b/data", base_model="owner/model")
    assert (there.place, there.data_dir) == ("s3://b/runs/a", "gs://b/data")
    for name in ("owner/model", "llama-3.2-3b", "local:tiny", "s3://b/model"):
        assert ServeOptions(place="x", base_model=name).base_model == name
    assert ServeOptions(place="x").data_dir is None


@pytest.mark.parametrize(
    ("host", "loopback", "address"),
    [
        ("127.0.0.1", True, "http://127.0.0.1:8000"),
        ("127.8.8.8", True, "http://127.8.8.8:8000"),
        ("::1", True, "http://[::1]:8000"),
        ("localhost", True, "http://localhost:8000"),
        ("0.0.0.0", False, "http://0.0.0.0:8000"),
        ("::", False, "http://[::]:8000"),
        ("10.0.0.7", False, "http://10.0.0.7:8000"),
        ("example.org", False, "http://example.org:8000"),
    ],
)
def test_who_can_reach_it(host: str, loopback: bool, address: str) -> None:
    options = ServeOptions(place="x", host=host)
    assert options.loopback is loopback and options.address == address


def test_only_this_machine_by_default() -> None:
    import inspect

    from bearray.commands.serve import serve

    assert ServeOptions(place="x").loopback
    assert inspect.signature(serve).parameters["host"].default == "127.0.0.1"


def test_the_commands_defaults_are_the_limits_own() -> None:
    import inspect
    from dataclasses import fields

    from bearray.commands.serve import serve
    from bearray.serving.service import Limits

    parameters = inspect.signature(serve).parameters
    assert {f"max_{f.name}": f.default for f in fields(Limits)} == {
        name: p.default for name, p in parameters.items() if name.startswith("max_")
    }


def test_the_extra_is_asked_for_by_name(export: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError("No module named 'starlette'")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"starlette.*pip install 'bearray\[serve\]'"):
        check_can_serve(ServeOptions(place=export), on_this_machine=False)


def test_what_cannot_be_opened_is_said_before_ray_starts(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="give a run folder or an export"):
        check_can_serve(ServeOptions(place=str(tmp_path / "none")), on_this_machine=False)


def test_a_port_in_use(export: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        options = ServeOptions(place=export, port=port)
        with pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1, port {port}: .*--port"):
            check_can_serve(options, on_this_machine=True)
        check_can_serve(options, on_this_machine=False)  # the service will listen elsewhere
    check_can_serve(options, on_this_machine=True)
    with pytest.raises(ConfigError, match=r"cannot listen on 203\.0\.113\.1"):
        check_can_serve(ServeOptions(place=export, host="203.0.113.1"), on_this_machine=True)


def test_a_serve_that_runs_already_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import serve

    stopped: list[str] = []
    status = SimpleNamespace(proxies={"node": "HEALTHY"}, applications={"other": None})
    monkeypatch.setattr(serve, "status", lambda: status)
    monkeypatch.setattr(serve, "shutdown", lambda: stopped.append("all"))
    message = r"already runs on this cluster \(applications: other\)"
    with pytest.raises(ResourceError, match=message), serving(ServeOptions(place="x")):
        pass
    assert stopped == []


@pytest.mark.parametrize(
    ("have", "options", "message"),
    [
        ({"CPU": 2.0}, {"replicas": 3}, "3 replicas need 3 CPUs, the cluster has 2"),
        ({"CPU": 9.0, "GPU": 1.0}, {"replicas": 2}, "2 replicas need 2 GPUs, the cluster has 1"),
    ],
)
def test_replicas_must_fit(
    monkeypatch: pytest.MonkeyPatch, have: dict[str, float], options: dict[str, Any], message: str
) -> None:
    from ray import serve

    monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(proxies={}, applications={}))
    monkeypatch.setattr(start.ray, "cluster_resources", lambda: have)
    with pytest.raises(ResourceError, match=message), serving(ServeOptions(place="x", **options)):
        pass
