"""A process that makes no progress ends itself and says where it was; one that makes some is left alone."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bearray.training.watchdog import EXIT_CODE

HEAD = """
import json, sys, threading, time
from bearray.training.watchdog import Watchdog

def say(note):
    with open(sys.argv[1], "w") as file:
        json.dump(note, file)

def sleep_for_ever():
    while True:
        time.sleep(1)
"""


def run(body: str, note: Path) -> subprocess.CompletedProcess[str]:
    code = HEAD + textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-c", code, str(note)], capture_output=True, text=True, timeout=120
    )


def test_a_hang_after_a_step(tmp_path: Path) -> None:
    done = run(
        """
        dog = Watchdog(0.3, say)
        with dog.watching():
            dog.step_done(6)
            sleep_for_ever()
        """,
        tmp_path / "note",
    )
    assert done.returncode == EXIT_CODE
    note = json.loads((tmp_path / "note").read_text())
    assert note["step"] == 6 and note["seconds"] >= 0.3
    assert note["where"].startswith("sleep_for_ever")
    assert [call.rpartition(" ")[2] for call in note["stack"]][-2:] == ["<module>", "sleep_for_ever"]
    assert "no progress" in done.stderr


def test_a_hang_is_found_out_in_the_time_given_however_long_the_first_step_may_take(tmp_path: Path) -> None:
    """The thread looks at the clock by the time-out, and not by the half hour that it began with."""
    done = run(
        """
        dog = Watchdog(0.5, say)
        with dog.watching():
            time.sleep(1)
            dog.step_done(0)
            sleep_for_ever()
        """,
        tmp_path / "note",
    )
    assert (
        done.returncode == EXIT_CODE
    )  # `run` waits for two minutes, and a twentieth of half an hour is 90 s
    assert json.loads((tmp_path / "note").read_text())["seconds"] < 80


def test_a_note_that_cannot_be_written_does_not_keep_the_process() -> None:
    for say in ("lambda note: sleep_for_ever()", "lambda note: 1 / 0"):
        body = f"""
        import bearray.training.watchdog as home
        home.NOTE_SECONDS = 0.2
        dog = Watchdog(0.2, {say})
        with dog.watching():
            dog.step_done(0)
            sleep_for_ever()
        """
        assert run(body, Path("unused")).returncode == EXIT_CODE


@pytest.mark.parametrize(
    "body",
    [
        "dog.step_done(0)\n    for _ in range(60): time.sleep(0.1); dog.progress('what', 'a hook gives')",
        "time.sleep(5)",  # the first step may take longer
        "dog.step_done(0)\ntime.sleep(5)",  # nobody watches after the block
    ],
)
def test_what_is_no_hang(body: str, tmp_path: Path) -> None:
    code = f"dog = Watchdog(4.0, say)\nwith dog.watching():\n    {body}\nprint('ended well')"
    done = run(code, tmp_path / "note")
    assert done.returncode == 0 and "ended well" in done.stdout, done.stderr
    assert not (tmp_path / "note").exists()


def test_zero_watches_nothing(tmp_path: Path) -> None:
    done = run(
        """
        dog = Watchdog(0, say)
        with dog.watching():
            dog.step_done(0)
            names = [thread.name for thread in threading.enumerate()]
        print(*names)
        """,
        tmp_path / "note",
    )
    assert done.returncode == 0 and "watchdog" not in done.stdout
