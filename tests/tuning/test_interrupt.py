"""What a process does about SIGINT; that a whole sweep ends in order is in tests/faults."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from bearray.errors import ConfigError
from bearray.tuning import interrupt
from bearray.tuning.interrupt import Interrupts, interruptible
from bearray.tuning.main import exit_code


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_exit_codes_and_words(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: BaseException) -> None:
        raise error

    before = signal.getsignal(signal.SIGINT)
    assert exit_code(lambda: None) == 0
    assert exit_code(press) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to continue\n"
    assert exit_code(lambda: fail(ConfigError("seeds is 0"))) == 2
    assert capsys.readouterr().err == "error: seeds is 0\n"
    full = OSError(errno.ENOSPC, "No space left on device", "/mnt/x/report.html")
    assert exit_code(lambda: fail(full)) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: cannot write /mnt/x/report.html: No space left on device; make room")
    with pytest.raises(PermissionError):
        exit_code(lambda: fail(PermissionError(errno.EPERM, "x", "y")))
    assert signal.getsignal(signal.SIGINT) is before


def test_an_impatient_second_press_does_not_break_off_the_cleaning(monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned = []

    def clean() -> None:
        press()
        press()
        cleaned.append(True)

    answers = iter([False, True])  # Ray did not run before the block, and does after it
    monkeypatch.setattr(interrupt, "_ray_runs", lambda: next(answers))
    monkeypatch.setattr(interrupt, "_stop_ray", clean)
    with pytest.raises(KeyboardInterrupt), interruptible():
        try:
            press()
        finally:
            press()  # at the same moment as the first
            cleaned.append(True)
    assert cleaned == [True, True]


def test_a_press_that_a_library_has_swallowed_is_heard_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "SAME_PRESS_SECONDS", -1.0)
    heard = 0
    with interruptible():
        for _ in range(2):
            try:
                press()
            except KeyboardInterrupt:
                heard += 1
    assert heard == 2


def test_a_cleaning_that_hangs_can_be_left(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    interrupts = Interrupts()
    interrupts.cleaning = True
    for _ in range(3):
        interrupts(signal.SIGINT, None)
    assert left == [130]


def test_a_ray_that_ran_before_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[bool] = []
    monkeypatch.setattr(interrupt, "_stop_ray", lambda: stopped.append(True))
    monkeypatch.setattr(interrupt, "_ray_runs", lambda: True)
    with interruptible():
        pass
    assert not stopped
