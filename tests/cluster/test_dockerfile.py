"""cluster/Dockerfile: read as Docker would, line by line; building it needs a network."""

from __future__ import annotations

import fnmatch
import re

from tests.cluster.files import CLUSTER, ROOT, pinned, project_version

INSTRUCTIONS = {"ARG", "FROM", "RUN", "COPY", "ENV", "USER", "WORKDIR", "CMD"}
TEXT = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """(name, rest) of each instruction, continued lines joined."""
    lines = [line for line in TEXT.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = [tuple(line.split(maxsplit=1)) for line in joined.splitlines()]
    assert all(len(pair) == 2 for pair in found)
    return [(name, rest) for name, rest in found]


def of(name: str) -> list[str]:
    return [rest for found, rest in instructions() if found == name]


def copied() -> list[str]:
    """What is taken from the build's folder."""
    return [source for rest in of("COPY") for source in rest.split()[:-1] if not source.startswith("--")]


def test_only_known_instructions_and_every_argument_is_declared() -> None:
    assert {name for name, _ in instructions()} <= INSTRUCTIONS
    declared = {rest.split("=")[0] for rest in of("ARG")}
    used = set(re.findall(r"\$\{(\w+)\}", "\n".join(rest for _, rest in instructions())))
    assert used <= declared


def test_python_is_one_that_the_project_supports() -> None:
    (base,) = of("FROM")
    assert base == "python:${PYTHON_VERSION}-slim-bookworm"
    version = next(rest.split("=")[1] for rest in of("ARG") if rest.startswith("PYTHON_VERSION="))
    assert (3, 10) <= tuple(map(int, version.split("."))) <= (3, 14)


def test_it_installs_by_the_constraints_into_the_environment_first_on_path() -> None:
    (install,) = [rest for rest in of("RUN") if "pip install" in rest]
    assert install.endswith("pip install --no-cache-dir -c constraints.txt -e .")
    assert any(rest.startswith("PATH=/opt/venv/bin:$PATH ") for rest in of("ENV"))


def test_it_does_not_run_as_root() -> None:
    assert of("USER") == ["1000:1000"]
    order = [name for name, _ in instructions()]
    assert order.index("USER") < order.index("COPY")


def test_what_it_copies_is_there_and_may_be_seen_by_the_build() -> None:
    ignore = (CLUSTER / "Dockerfile.dockerignore").read_text(encoding="utf-8").split("\n")
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*"  # nothing but what follows
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert set(copied()) == allowed
    assert all((ROOT / name).exists() for name in copied())
    assert not any(
        fnmatch.fnmatch(name, pattern) for name in ("data", "results", ".venv") for pattern in allowed
    )


def test_the_tag_in_its_comment_is_of_these_versions() -> None:
    assert set(re.findall(r"bearray:(\S+)", TEXT)) == {f"{project_version()}-ray{pinned('ray')}"}
    assert f"torch {pinned('torch')}" in TEXT
