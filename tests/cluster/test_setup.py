"""cluster/setup.sh, run for real, with a Python that only writes down what it was asked to do."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.cluster.files import CLUSTER

PYTHON = """#!/bin/bash
echo "$@" >> "$CALLS"
case "$*" in
    "-c "*) exit "${TOO_OLD:-0}" ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-") exit "${NO_CUDA:-0}" ;;
esac
"""


def executable(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


class Node:
    """A machine in a folder: a home with the project in it, and commands that do nothing."""

    def __init__(self, folder: Path) -> None:
        self.home, self.bin, self.calls = folder / "home", folder / "bin", folder / "calls"
        self.root = self.home / "bearray"
        (self.home / ".ray").mkdir(parents=True)
        self.bin.mkdir()
        shutil.copytree(CLUSTER, self.root / "cluster")
        for name in ("pyproject.toml", "constraints.txt"):
            (self.root / name).write_text(f"{name} of today", encoding="utf-8")
        self.token = self.home / ".ray" / "auth_token"
        self.token.write_text("a" * 64, encoding="utf-8")
        self.token.chmod(0o644)
        executable(self.bin / "python3", PYTHON)
        executable(self.bin / "c++", "#!/bin/bash\n")

    def setup(self, *extras: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(self.root / "cluster" / "setup.sh"), *extras],
            env={"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(self.home), "PYTHON": f"{self.bin}/python3",
                 "CXX": f"{self.bin}/c++", "CALLS": str(self.calls), **environment},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def installed(self) -> list[str]:
        """pip's arguments since the last look."""
        lines = self.calls.read_text(encoding="utf-8").splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        return [line.split("--disable-pip-version-check ")[1] for line in lines if "pip install" in line]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_installs_by_the_constraints_once(node: Node) -> None:
    done = node.setup()
    assert done.returncode == 0, done.stderr
    assert node.installed() == [f"-c {node.root}/constraints.txt -e {node.root}"]
    assert node.setup().returncode == 0
    assert node.installed() == []


def test_installs_again_when_a_pin_or_the_extras_change(node: Node) -> None:
    for pins in ("today's", "tomorrow's", "today's"):  # also back to what was there before
        (node.root / "constraints.txt").write_text(pins, encoding="utf-8")
        node.setup()
        assert len(node.installed()) == 1
    node.setup("aws", "wandb")
    assert node.installed() == [f"-c {node.root}/constraints.txt -e {node.root}[aws,wandb]"]


def test_a_failed_installation_is_not_taken_for_done(node: Node) -> None:
    node.setup()
    node.installed()
    (node.root / "pyproject.toml").write_text("changed", encoding="utf-8")
    executable(node.root / ".venv" / "bin" / "python", "#!/bin/bash\nexit 1\n")
    assert node.setup().returncode != 0
    executable(node.root / ".venv" / "bin" / "python", PYTHON)
    assert node.setup().returncode == 0
    assert len(node.installed()) == 1


def test_the_token_is_the_users_alone(node: Node) -> None:
    node.setup()
    assert stat.S_IMODE(node.token.stat().st_mode) == 0o600
    assert stat.S_IMODE(node.token.parent.stat().st_mode) == 0o700


def test_shells_find_the_environment_and_the_line_is_written_once(node: Node) -> None:
    (node.home / ".bashrc").write_text("# mine\n", encoding="utf-8")
    for _ in range(2):
        node.setup()
    lines = (node.home / ".bashrc").read_text(encoding="utf-8").splitlines()
    assert lines == ["# mine", f'. "{node.root}/cluster/env.sh"  # bearray']
    shown = subprocess.run(
        ["bash", "-c", '. "$HOME/.bashrc"; echo "$PATH" "$RAY_AUTH_MODE"'],
        env={"HOME": str(node.home), "PATH": os.defpath}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.startswith(f"{node.root}/.venv/bin:") and shown.stdout.strip().endswith(" token")


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no token", "ray get-auth-token --generate"),
        ("empty token", "ray get-auth-token --generate"),
        ("no compiler", "apt-get install g++"),
        ("old Python", "older than Python 3.10"),
        ("GPU without CUDA", "docs/cluster.md"),
    ],
)
def test_says_what_is_missing(node: Node, case: str, message: str) -> None:
    environment = {}
    if case == "no token":
        node.token.unlink()
    elif case == "empty token":
        node.token.write_text("", encoding="utf-8")
    elif case == "no compiler":
        environment["CXX"] = "no-such-compiler"
    elif case == "old Python":
        environment["TOO_OLD"] = "1"
    else:
        executable(node.bin / "nvidia-smi", "#!/bin/bash\necho 'GPU 0: NVIDIA L40S'\n")
        assert node.setup().returncode == 0  # one that works is no error
        environment["NO_CUDA"] = "1"
    done = node.setup(**environment)
    assert done.returncode == 1
    assert message in done.stderr and "a" * 64 not in done.stdout + done.stderr


def test_an_environment_of_ones_own(node: Node) -> None:
    venv = node.home / "elsewhere"
    assert node.setup(BEARRAY_VENV=str(venv)).returncode == 0
    assert (venv / "bin" / "python").exists() and not (node.root / ".venv").exists()
    shown = subprocess.run(  # what `ray down` goes through must find it, too
        ["bash", "-c", '. "$HOME/.bashrc"; echo "$PATH"'],
        env={"HOME": str(node.home), "PATH": os.defpath}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.startswith(f"{venv}/bin:")


def test_secrets_are_the_users_alone(node: Node) -> None:
    secrets = node.home / ".config" / "bearray" / "secrets.env"
    secrets.parent.mkdir(parents=True)
    secrets.write_text("HF_TOKEN=x\n", encoding="utf-8")
    secrets.chmod(0o644)
    assert node.setup().returncode == 0
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
