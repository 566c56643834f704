"""Python, packages, compiler, DeepSpeed's operation."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from bearray.doctor.finding import Finding

MINIMUM = (3, 10)
TESTED = (3, 14)
"""The newest Python that the pinned versions are made for."""
CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
"""Of a checkout; an installed package has none."""
OPERATION = "ShareMemCommBuilder"
"""DeepSpeed's name of what it compiles for CPU workers on their first use."""


def check_python() -> Finding:
    version = sys.version_info[:2]
    text = f"{'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}"
    if version < MINIMUM:
        return Finding("Python", "problem", text, "bearray needs Python 3.10 or newer; make PYTHON=... setup")
    if version > TESTED:
        return Finding("Python", "warning", text, "newer than what bearray's versions are pinned for (3.14)")
    return Finding("Python", "ok", text)


def check_packages() -> Finding:
    """What bearray requires is there, and new enough."""
    wrong = []
    for requirement in _required():
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} is {found}, not {requirement.specifier}")
    if wrong:
        return Finding("packages", "problem", "; ".join(wrong), _install())
    return Finding("packages", "ok", "all that bearray needs is installed")


def check_pins(constraints: Path = CONSTRAINTS) -> Finding:
    """How far the installed versions are from those that bearray was tested with."""
    if not constraints.is_file():
        return Finding("pinned versions", "note", "not in a checkout, so there is nothing to compare with")
    others = []
    for pin in _pins(constraints):
        try:
            found = metadata.version(pin.name)
        except metadata.PackageNotFoundError:
            continue
        if not pin.specifier.contains(found.split("+")[0], prereleases=True):
            others.append(f"{pin.name} {found} ({pin.specifier})")
    if others:
        shown = ", ".join(others[:8]) + (f" and {len(others) - 8} more" if len(others) > 8 else "")
        return Finding("pinned versions", "warning", f"other than the tested ones: {shown}", _install())
    return Finding("pinned versions", "ok", f"as in {constraints.name}")


def check_compiler() -> Finding:
    """DeepSpeed compiles an operation on its first use."""
    name = os.environ.get("CXX") or "c++"
    found = shutil.which(name.split()[0])
    if found is None:
        return Finding(
            "C++ compiler",
            "problem",
            f"there is no {name}; DeepSpeed compiles a small operation on its first use",
            "install one: apt-get install g++ (Debian, Ubuntu), dnf install gcc-c++ (Fedora), "
            "xcode-select --install (macOS); or train with --train.engine ddp",
        )
    return Finding("C++ compiler", "ok", found)


def check_ninja() -> Finding:
    """Drives the compiler; PyTorch looks for the program, which the package puts beside Python."""
    beside = shutil.which("ninja", path=str(Path(sys.executable).parent))
    found = shutil.which("ninja") or beside
    if found is None:
        return Finding(
            "ninja", "problem", "not found; DeepSpeed cannot compile without it", "pip install ninja"
        )
    return Finding("ninja", "ok", found)


def check_deepspeed(*, build: bool = False) -> Finding:
    """DeepSpeed can be imported and its operation made.

    Args:
        build: compile and load it now (up to a minute; nothing where it was done before).
    """
    code = (
        f"from deepspeed.ops.op_builder import {OPERATION} as Builder; builder = Builder(); "
        "print('compatible', builder.is_compatible(verbose=False))"
        + ("; builder.load(verbose=False); print('built')" if build else "")
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=600 if build else 120,
            env=os.environ | {"DS_ACCELERATOR": os.environ.get("DS_ACCELERATOR", "cpu")},
        )
    except subprocess.TimeoutExpired:
        return Finding(
            "DeepSpeed",
            "problem",
            "its operation was not ready in time; another process may hold the build's lock",
            f"end that process, or remove {_extensions()} and try again",
        )
    if done.returncode:
        return Finding(
            "DeepSpeed",
            "problem",
            f"does not work: {_last_words(done)}",
            f"check compiler and ninja, remove {_extensions()}, and try again with --deep; "
            "or train with --train.engine ddp",
        )
    if "compatible True" not in done.stdout:
        return Finding(
            "DeepSpeed",
            "note",
            "its shared-memory operation does not exist on this system; it uses gloo instead",
        )
    if build:
        return Finding("DeepSpeed", "ok", "its operation is built and loads")
    return Finding("DeepSpeed", "ok", "imports; its operation can be built (--deep builds it)")


def _required() -> Iterator[Requirement]:
    """bearray's own requirements, without those of extras."""
    for text in metadata.requires("bearray") or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def _pins(constraints: Path) -> Iterator[Requirement]:
    for line in constraints.read_text(encoding="utf-8").splitlines():
        text = line.split("#")[0].strip()
        if not text:
            continue
        try:
            pin = Requirement(text)
        except InvalidRequirement:
            continue  # an option of pip, such as -r: no version to compare
        if pin.marker is None or pin.marker.evaluate():
            yield pin


def _install() -> str:
    if CONSTRAINTS.is_file():
        return "make setup, or: pip install -c constraints.txt -e ."
    return "pip install --upgrade bearray"


def _extensions() -> str:
    return os.environ.get("TORCH_EXTENSIONS_DIR", "~/.cache/torch_extensions")


def check_ray(constraints: Path = CONSTRAINTS, *, start: bool = False) -> Finding:
    """Ray can be imported, is the tested version, and a node of it starts.

    Args:
        start: start a node of its own, have it do something, and stop it again (some seconds).
    """
    try:
        ray = importlib.import_module("ray")
    except Exception as error:  # a broken binary raises what it likes
        return Finding("Ray", "problem", f"cannot be imported: {error}", _install())
    text = str(ray.__version__)
    if start:
        wrong = _start_node()
        if wrong:
            return Finding(
                "Ray",
                "problem",
                f"{text}: a node does not start: {wrong}",
                "see /tmp/ray/session_latest/logs; a busy machine (Ray waits 30 s), a proxy, a full disk "
                "and little shared memory are common reasons",
            )
        text += "; a node starts and answers"
    pins = [pin for pin in _pins(constraints) if pin.name == "ray"] if constraints.is_file() else []
    if pins and not pins[0].specifier.contains(ray.__version__, prereleases=True):
        tested = str(pins[0].specifier).removeprefix("==")
        return Finding("Ray", "warning", f"{text}; bearray is tested with {tested}", _install())
    return Finding("Ray", "ok", text)


def _start_node() -> str | None:
    """What goes wrong when a node of Ray is started, in a process of its own; None if nothing does."""
    code = (
        "import ray; ray.init(address='local', num_cpus=1, include_dashboard=False, log_to_driver=False, "
        "logging_level='ERROR'); print('answer', ray.get(ray.remote(lambda: 42).remote())); ray.shutdown()"
    )
    own = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=180, env=own
        )
    except subprocess.TimeoutExpired:
        return "it did not answer within 3 minutes"
    return None if done.returncode == 0 and "answer 42" in done.stdout else _last_words(done)


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    """Of a program that failed."""
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1].strip() if lines else f"exit code {done.returncode}"
