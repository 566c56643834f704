"""A run that left tests out says so at its end, and fails where they are required."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.not_run import REQUIRE, required

ROOT = Path(__file__).resolve().parents[1]
CONFTEST = "from tests.not_run import pytest_runtest_makereport, pytest_terminal_summary\n"
TESTS = """
import pytest

@pytest.fixture
def server():
    pytest.skip("needs a\\nserver")

def test_runs(): pass
def test_asks(server): pass
def test_asks_again(server): pass
@pytest.mark.skipif(True, reason="needs Linux")
def test_never(): pass
@pytest.mark.xfail(reason="known")
def test_known(): assert False
"""


def run(folder: Path, require: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_a.py").write_text(TESTS)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, "test_a.py"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        REQUIRE: require,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_run_ends_with_what_was_not_run(tmp_path: Path) -> None:
    done = run(tmp_path, "", "-m", "not browser", "-W", "ignore", "-ra")
    assert done.returncode == 0, done.stdout
    block = done.stdout[done.stdout.index("NOT RUN") :].splitlines()
    assert block[1:4] == [
        "2 tests: needs a server [test_a.py]",
        "1 test: needs Linux [test_a.py]",
        'the tests that -m "not browser" leaves out',
    ]
    assert len(block) == 5  # what follows is pytest's count alone


def test_a_required_test_that_was_skipped_fails(tmp_path: Path) -> None:
    done = run(tmp_path, "test_b.py test_a.py::test_asks")
    assert done.returncode == 1, done.stdout
    wanted = f"{REQUIRE} names test_a.py::test_asks, but it was skipped: needs a server"
    assert wanted in done.stdout
    assert "2 skipped" in done.stdout and "1 xfailed" in done.stdout and "1 passed" in done.stdout


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("tests/faults", True),
        ("tests/faults/test_x.py", True),
        ("tests/fault", False),
        ("all", True),
        ("", False),
    ],
)
def test_names_are_files_folders_or_tests(name: str, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRE, name)
    assert required("tests/faults/test_x.py::test_y[1/2]") is wanted
