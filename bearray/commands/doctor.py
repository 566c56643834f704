"""`bearray doctor`: is this machine ready, and if not, what to do."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict

_MARKS = {"ok": ("ok", "green"), "note": ("note", "cyan"), "warning": ("warning", "yellow")}
_PROBLEM = ("PROBLEM", "bold red")


def doctor(
    *, storage: str | None = None, cluster: bool = False, deep: bool = False, json: bool = False
) -> int:
    """Check this machine, and say how to mend what is wrong.

    Looks at Python, packages and their tested versions, compiler, DeepSpeed, GPU, cores, memory and disks
    (also where a container has less than the machine), base models, Ray and its token. Without --deep it
    starts and changes nothing. The exit code is 1 if something would stop a run, else 0.

    Args:
        storage: Storage path (folder or URI) that runs will be written to: writes and removes a small file.
        cluster: Ask the running cluster (RAY_ADDRESS, or the one of this machine) what it has.
        deep: Compile DeepSpeed's operation, as the first training would (up to a minute), and start a node of
            Ray for a moment.
        json: Print a JSON list of {check, status, text, mend}.
    """
    from bearray.doctor import Finding, Options, diagnose

    options = Options(storage=storage, cluster=cluster, deep=deep)
    found: list[Finding] = []
    if json:
        found = list(diagnose(options))
        print(json_format.dumps([asdict(finding) for finding in found], indent=2))
    else:
        for finding in diagnose(options):
            found.append(finding)
            _show(finding)
        _sum_up([finding.status for finding in found])
    return int(any(finding.status == "problem" for finding in found))


def _show(finding: object) -> None:
    from rich.text import Text

    from bearray.doctor import Finding
    from bearray.terminal import terminal

    assert isinstance(finding, Finding)
    console = terminal(soft_wrap=True)
    mark, style = _MARKS.get(finding.status, _PROBLEM)
    console.print(Text.assemble((f"{mark:<9}", style), f"{finding.check}: {finding.text}"))
    if finding.mend:
        console.print(Text(f"{'':<9}-> {finding.mend}"))


def _sum_up(statuses: list[str]) -> None:
    problems, warnings = statuses.count("problem"), statuses.count("warning")
    if problems:
        print(f"\n{problems} of {len(statuses)} checks found what would stop a run; mend these first")
    elif warnings:
        print(f"\nready, with {warnings} warning{'s' * (warnings != 1)}")
    else:
        print("\nready")
