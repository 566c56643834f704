"""The commands of docs/cluster.md and of the files' comments: programs, options and files exist."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from ray.scripts.scripts import cli

from tests.cluster.files import CLUSTER, ROOT, pinned, project_version

PAGES = [ROOT / "README.md", ROOT / "docs" / "cluster.md", *sorted(CLUSTER.glob("*.yaml"))]
PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")


def ray_commands(text: str) -> list[list[str]]:
    """Arguments of each `ray ...` in code and comments; what follows ` -- ` is the job's."""
    found = re.findall(r"^(?:# +|   )?((?:RAY_\w+=\S+ )*ray (?:.*))$", text, re.M) + re.findall(
        r"`((?:RAY_\w+=\S+ )*ray [^`\n]+)`", text
    )
    commands = []
    for line in found:
        words = shlex.split(re.sub(r"\s#.*|>.*", "", line).split(" -- ")[0])
        commands.append([word for word in words[words.index("ray") + 1 :] if word != "..."])
    return commands


def check(words: list[str]) -> None:
    """Fails where Ray has no such command, option or, of the project's cluster files, no such file."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words:
        name, *words = words
        assert name in command.commands, f"ray has no command {name}"
        command = command.commands[name]
    known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("-"):
            assert word.partition("=")[0] in known, f"ray {command.name} has no {word}"
        if word.startswith("cluster/"):
            assert (ROOT / word).is_file(), f"there is no {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_ray_commands_exist(page) -> None:
    for words in ray_commands(page.read_text(encoding="utf-8")):
        check(words)


def test_they_are_found_and_mistakes_noticed() -> None:
    names = {words[0] for words in ray_commands(PAGE)}
    assert {"up", "down", "job", "dashboard", "exec", "get-auth-token", "rsync-down"} <= names
    for wrong in (["ups"], ["job", "log"], ["up", "cluster/gpus.yaml"], ["job", "submit", "--work-dir", "."]):
        with pytest.raises(AssertionError):
            check(wrong)


def test_every_cluster_file_is_explained() -> None:
    files = {path.name for path in CLUSTER.iterdir()} - {"Dockerfile.dockerignore"}
    assert files == set(re.findall(r"`cluster/([\w.-]+)`", PAGE))


def test_versions_are_those_of_the_project() -> None:
    assert set(re.findall(r"bearray:(\S+)", PAGE)) == {f"{project_version()}-ray{pinned('ray')}"}
    assert f"({pinned('torch')})" in PAGE


def test_the_page_says_what_was_not_run() -> None:
    """A command with a cloud in it is either named there, or a reader would take it for tried."""
    said = PAGE.split("**What was run.**")[1].split("\n\n")[0]
    programs = set(re.findall(r"^ *(aws|gcloud|docker|kubectl) ", PAGE, re.M))
    assert programs and all(f"`{program}`" in said for program in programs)
