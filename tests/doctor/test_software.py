"""Python, packages, compiler, DeepSpeed: each check with a machine that has the fault."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bearray.doctor import software


@pytest.mark.parametrize(
    ("version", "status"),
    [((3, 9, 1), "problem"), ((3, 10, 0), "ok"), ((3, 14, 2), "ok"), ((3, 15, 0), "warning")],
)
def test_python(monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], status: str) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    found = software.check_python()
    assert found.status == status and ".".join(map(str, version)) in found.text
    assert bool(found.mend) == (status != "ok")


def pretend(monkeypatch: pytest.MonkeyPatch, requires: list[str], versions: dict[str, str]) -> None:
    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "requires", lambda name: requires)
    monkeypatch.setattr(metadata, "version", version)


def test_packages_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    requires = ["torch>=2.6", "ray[data]>=2.60", "wandb>=1; extra == 'wandb'", "old; python_version < '3'"]
    pretend(monkeypatch, requires, {"torch": "2.13.0+cpu", "ray": "2.60.0"})
    assert software.check_packages().status == "ok"


@pytest.mark.parametrize(
    ("versions", "text"),
    [({"torch": "2.5.1"}, "torch is 2.5.1, not >=2.6"), ({}, "torch is missing")],
)
def test_packages_that_are_missing_or_old(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str], text: str
) -> None:
    pretend(monkeypatch, ["torch>=2.6"], versions)
    found = software.check_packages()
    assert (found.status, found.text) == ("problem", text) and "make setup" in found.mend


def test_the_installed_packages_are_enough() -> None:
    assert software.check_packages().status == "ok"


def test_pins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "constraints.txt"
    file.write_text(
        "# pins\n\ntorch==2.13.0  # here\nray==2.60.0\ngone==1.0\nodd==1; python_version < '3'\n-r x\n"
    )
    pretend(monkeypatch, [], {"torch": "2.13.0+cpu", "ray": "2.60.0", "odd": "2"})
    assert software.check_pins(file).status == "ok"
    pretend(monkeypatch, [], {"torch": "2.13.0", "ray": "2.61.0"})
    found = software.check_pins(file)
    assert found.status == "warning" and "ray 2.61.0 (==2.60.0)" in found.text and "torch" not in found.text
    assert software.check_pins(tmp_path / "none.txt").status == "note"


def test_many_other_versions_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = [f"p{i}" for i in range(11)]
    (tmp_path / "c.txt").write_text("".join(f"{name}==1\n" for name in names))
    pretend(monkeypatch, [], dict.fromkeys(names, "2"))
    assert software.check_pins(tmp_path / "c.txt").text.endswith("p7 2 (==1) and 3 more")


def test_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("shutil.which", lambda name, **_: f"/bin/{name}")
    assert software.check_compiler().text == "/bin/c++"
    monkeypatch.setenv("CXX", "clang++ -O2")
    assert software.check_compiler().text == "/bin/clang++"
    monkeypatch.setattr("shutil.which", lambda name, **_: None)
    found = software.check_compiler()
    assert found.status == "problem" and "clang++" in found.text and "apt-get install g++" in found.mend


def test_ninja_beside_python_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path=None: f"{path}/{name}" if path else None)
    assert software.check_ninja().status == "ok"
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    assert software.check_ninja().mend == "pip install ninja"


@pytest.mark.parametrize(
    ("code", "out", "err", "build", "status", "text"),
    [
        (0, "compatible True\n", "", False, "ok", "--deep builds it"),
        (0, "compatible True\nbuilt\n", "", True, "ok", "is built and loads"),
        (0, "compatible False\n", "", False, "note", "gloo"),
        (1, "", "Traceback\nRuntimeError: Ninja is required\n\n", True, "problem", "Ninja is required"),
        (-9, "", "", False, "problem", "exit code -9"),
    ],
)
def test_deepspeed(
    monkeypatch: pytest.MonkeyPatch, code: int, out: str, err: str, build: bool, status: str, text: str
) -> None:
    asked: list[Any] = []

    def run(command: list[str], **options: Any) -> Any:
        asked.append(command[-1])
        return subprocess.CompletedProcess(command, code, out, err)

    monkeypatch.setattr(subprocess, "run", run)
    found = software.check_deepspeed(build=build)
    assert found.status == status and text in found.text
    assert ("load" in asked[0]) == build
    assert bool(found.mend) == (status == "problem")


def test_a_build_that_hangs_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], timeout: float, **_: Any) -> Any:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "/ext")
    found = software.check_deepspeed(build=True)
    assert found.status == "problem" and "lock" in found.text and "/ext" in found.mend


def test_ray_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise OSError("libcrypt.so.1: cannot open shared object file")

    monkeypatch.setattr("importlib.import_module", broken)
    found = software.check_ray()
    assert found.status == "problem" and "libcrypt" in found.text


@pytest.mark.parametrize(("version", "status"), [("2.60.0", "ok"), ("2.61.1", "warning")])
def test_another_ray_than_the_tested_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, status: str
) -> None:
    pins = tmp_path / "constraints.txt"
    pins.write_text("ray==2.60.0\n")
    monkeypatch.setattr(software.importlib, "import_module", lambda _: SimpleNamespace(__version__=version))
    found = software.check_ray(pins)
    assert found.status == status and found.text.startswith(version) and bool(found.mend) == (status != "ok")
    assert ("tested with 2.60.0" in found.text) == (status != "ok")
    assert software.check_ray(tmp_path / "none").status == "ok"


@pytest.mark.parametrize(
    ("code", "out", "err", "status", "text"),
    [
        (0, "answer 42\n", "", "ok", "a node starts and answers"),
        (1, "", "Traceback\nRuntimeError: the raylet has died\n", "problem", "the raylet has died"),
        (-9, "", "", "problem", "exit code -9"),
        (None, "", "", "problem", "3 minutes"),
    ],
)
def test_a_node_of_ray(
    monkeypatch: pytest.MonkeyPatch, code: int | None, out: str, err: str, status: str, text: str
) -> None:
    asked: list[Any] = []

    def run(command: list[str], **options: Any) -> Any:
        asked.append(options["env"])
        if code is None:
            raise subprocess.TimeoutExpired(command, options["timeout"])
        return subprocess.CompletedProcess(command, code, out, err)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert "node" not in software.check_ray().text and asked == []  # only when asked for
    found = software.check_ray(start=True)
    assert found.status == status and text in found.text and bool(found.mend) == (status != "ok")
    assert "RAY_ADDRESS" not in asked[0]  # a node of its own, not a look at the cluster
