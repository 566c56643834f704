"""Token, cluster, storage, hub: each check with a machine that has the fault. No Ray is started."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bearray import cli
from bearray.doctor import Options, access, diagnose
from bearray.doctor.diagnose import checks
from bearray.doctor.finding import Finding

SECRET = "0123456789abcdef-secret"


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))

    def write(text: str | None, mode: int = 0o600) -> Path:
        if text is not None:
            file.write_text(text)
            file.chmod(mode)
        return file

    return write


@pytest.mark.parametrize(
    ("text", "permissions", "mode", "status", "said"),
    [
        (SECRET, 0o600, "token", "ok", ""),
        (SECRET, 0o600, "", "ok", "set RAY_AUTH_MODE=token to send it"),
        (SECRET, 0o644, "token", "warning", "can be read by other users (644)"),
        ("\n", 0o600, "token", "problem", "is empty"),
        (None, 0, "", "note", "does not exist; a local Ray makes one"),
        (None, 0, "token", "problem", "RAY_AUTH_MODE=token, but"),
        (SECRET, 0o600, "disabled", "warning", "can run programs on it"),
        (SECRET, 0o600, "on", "problem", "RAY_AUTH_MODE is 'on'"),
    ],
)
def test_token(
    monkeypatch: pytest.MonkeyPatch,
    token: Callable[..., Path],
    text: str | None,
    permissions: int,
    mode: str,
    status: str,
    said: str,
) -> None:
    token(text, permissions)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    found = access.check_token()
    assert found.status == status and said in found.text
    assert bool(found.mend) == (status != "ok")
    assert SECRET not in found.text + found.mend


def test_a_token_in_the_environment_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, token: Callable[..., Path]
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    found = access.check_token()
    assert found.status == "ok" and SECRET not in found.text


def test_a_token_that_cannot_be_read(token: Callable[..., Path]) -> None:
    token(None).mkdir()
    assert access.check_token().status == "problem"


def fake_ray(monkeypatch: pytest.MonkeyPatch, have: dict[str, float] | Exception) -> list[str]:
    """A ray module that counts what is done to it."""
    done: list[str] = []

    def init(address: str, **_: Any) -> None:
        done.append(f"init {address}")
        if isinstance(have, Exception):
            raise have

    ray = SimpleNamespace(
        init=init,
        shutdown=lambda: done.append("shutdown"),
        cluster_resources=lambda: have,
        nodes=lambda: [{"Alive": True}, {"Alive": False}],
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    return done


def test_a_cluster_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    done = fake_ray(monkeypatch, {"CPU": 16.0, "GPU": 2.0})
    found = access.check_cluster()
    assert (found.status, found.text) == ("ok", "on this machine: 1 node, 16 CPUs, 2 GPUs")
    assert done == ["init auto", "shutdown"]  # "auto" joins a cluster and never starts one


def test_a_cluster_that_is_too_small_or_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    fake_ray(monkeypatch, {"CPU": 1.0})
    assert access.check_cluster().status == "problem"
    done = fake_ray(monkeypatch, ConnectionError("Could not find any running Ray instance.\nmore"))
    found = access.check_cluster()
    assert found.status == "problem" and found.text == (
        "none answers at 10.0.0.1:6379: Could not find any running Ray instance."
    )
    assert "ray start --head" in found.mend and done == ["init 10.0.0.1:6379"]


def test_storage(tmp_path: Path) -> None:
    found = access.check_storage(str(tmp_path / "results"))
    assert found.status == "ok" and "every node" in found.text
    assert list((tmp_path / "results").iterdir()) == []
    (tmp_path / "file").write_text("")
    assert access.check_storage(str(tmp_path / "file" / "results")).status == "problem"
    assert access.check_storage("nonsense://bucket").status == "problem"


def fake_hub(
    monkeypatch: pytest.MonkeyPatch, cache: Path, *, token: str | None, offline: bool = False
) -> None:
    constants = SimpleNamespace(HF_HUB_CACHE=str(cache), HF_HUB_OFFLINE=offline)
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(get_token=lambda: token))
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", constants)


def test_base_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_hub(monkeypatch, tmp_path, token=None)
    found = access.check_hub()
    assert found.status == "note" and "no hub token" in found.text and "hf auth login" in found.mend
    fake_hub(monkeypatch, tmp_path, token=SECRET)
    found = access.check_hub()
    assert found.status == "ok" and SECRET not in found.text + found.mend
    (tmp_path / "models--meta-llama--Llama-3.2-1B").mkdir()
    fake_hub(monkeypatch, tmp_path, token=None, offline=True)
    found = access.check_hub()
    assert "meta-llama/Llama-3.2-1B" in found.text and "HF_HUB_OFFLINE" in found.mend


def test_every_check_is_made_and_a_broken_one_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Finding:
        raise ZeroDivisionError("oh")

    def fine(**_: Any) -> Finding:
        return Finding("fine", "ok", "")

    monkeypatch.setattr("bearray.doctor.software.check_python", broken)
    for module, names in {
        "software": ("packages", "pins", "compiler", "ninja", "deepspeed", "ray"),
        "hardware": ("torch", "cores", "memory", "shm"),
        "access": ("hub", "token"),
    }.items():
        for name in names:
            monkeypatch.setattr(f"bearray.doctor.{module}.check_{name}", fine)
    found = list(diagnose())
    assert len(found) == len(checks(Options()))
    assert (
        found[0].check == "Python"
        and found[0].status == "warning"
        and "ZeroDivisionError: oh" in found[0].text
    )
    assert {f.check for f in found[1:]} == {"fine", "disk: here", "disk: cache", "disk: Ray"}


def test_storage_cluster_and_build_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    monkeypatch.setattr("bearray.doctor.software.check_deepspeed", lambda *, build: built.append(build))
    assert not {"storage", "cluster"} & {name for name, _ in checks(Options())}
    asked = dict(checks(Options(storage="s3://b/x", cluster=True, deep=True)))
    assert {"storage", "cluster"} <= set(asked)
    asked["DeepSpeed"]()
    dict(checks(Options()))["DeepSpeed"]()
    assert built == [True, False]


@pytest.mark.parametrize(
    ("statuses", "code", "said"),
    [
        (["ok", "note"], 0, "ready"),
        (["ok", "warning"], 0, "ready, with 1 warning"),
        (["problem", "warning"], 1, "1 of 2 checks found what would stop a run"),
    ],
)
def test_the_command(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    statuses: list[Any],
    code: int,
    said: str,
) -> None:
    findings = [Finding(f"check {s}", s, f"[b]text of {s}[/b]", f"mend {s}") for s in statuses]
    monkeypatch.setattr("bearray.doctor.diagnose", lambda options: iter(findings))
    assert cli.run(["doctor"]) == code
    out = capsys.readouterr().out
    assert out.rstrip().splitlines()[-1].startswith(said)
    for status in statuses:
        assert f"check {status}: [b]text of {status}[/b]" in out and f"-> mend {status}" in out
    assert cli.run(["doctor", "--json"]) == code
    rows = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in rows] == statuses and set(rows[0]) == {"check", "status", "text", "mend"}


def test_this_process_has_a_place_for_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    assert access.token_file() == Path(os.path.expanduser("~/.ray/auth_token"))


def test_the_hubs_own_library_answers() -> None:
    assert access.check_hub().status in ("ok", "note")
