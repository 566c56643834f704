"""What a test run ends with: a list of what it did NOT run, and why; and tests that must not be left out.

A test that needs a program, rights or data that a machine lacks is skipped, and a run without it is as green
as one with it. So every run ends with all skips, by reason. `BEARRAY_REQUIRE` names tests (a file, a folder
or one test's id; several with spaces between them) whose skip is a failure; `all` is every one.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Generator
from typing import Any

import pytest

REQUIRE = "BEARRAY_REQUIRE"


def required(nodeid: str) -> bool:
    """Whether a test must not be skipped."""
    names = os.environ.get(REQUIRE, "").split()
    return any(name == "all" or (nodeid + "/").startswith((f"{name}/", f"{name}::")) for name in names)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and required(item.nodeid):
        report.outcome = "failed"
        report.longrepr = f"{REQUIRE} names {item.nodeid}, but it was skipped: {reason(report)}"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> Generator[None, None, None]:
    yield  # after everybody else's
    lines = not_run(terminalreporter.stats.get("skipped", []), config.option.markexpr)
    if lines:
        terminalreporter.section("NOT RUN", sep="=", yellow=True)
        for line in lines:
            terminalreporter.write_line(line)


def not_run(skipped: list[Any], markers: str = "") -> list[str]:
    """A line for each reason why tests were not run, the files of the tests behind it.

    Args:
        skipped: reports of skipped tests. markers: what the run was limited to, as in `-m`.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for report in skipped:
        found[reason(report)].append(report.nodeid.partition("::")[0])
    lines = [
        f"{len(files)} test{'s' * (len(files) > 1)}: {why} [{', '.join(sorted(set(files)))}]"
        for why, files in found.items()
    ]
    return [*lines, *([f'the tests that -m "{markers}" leaves out'] if markers else [])]


def reason(report: Any) -> str:
    """In words, on one line."""
    where = report.longrepr
    text = where[2] if isinstance(where, tuple) else str(where)
    return " ".join(str(text).removeprefix("Skipped: ").split())
