"""The document as PDF, printed by a Chromium or Chrome of the machine, if it has one."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

VARIABLE = "BEARRAY_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable")
LIMIT_S = 300.0
"""Seconds after which the browser is ended."""
_DATE = rb"\(D:\d{14}[^)]*\)"


def find_browser() -> str | None:
    """$BEARRAY_CHROMIUM, or the first Chromium or Chrome on the path."""
    asked = os.environ.get(VARIABLE)
    return asked or next((found for name in NAMES if (found := shutil.which(name))), None)


def write_pdf(page: Path, pdf: Path, *, limit_s: float = LIMIT_S) -> str | None:
    """Print an HTML file to a PDF. The same page and browser give the same bytes: dates are left out.

    The browser has a profile of its own, which is deleted, and no sandbox only where it runs as root, under
    whom it has none.

    Args:
        page: the file. pdf: where the PDF goes. limit_s: seconds that the browser may take.

    Returns:
        None when it is written, else why there is none, in words for a reader.
    """
    browser = find_browser()
    if browser is None:
        return f"no Chromium or Chrome on the path; install one, or set {VARIABLE}"
    with tempfile.TemporaryDirectory(prefix="bearray-pdf-", ignore_cleanup_errors=True) as profile:
        made = Path(profile) / "page.pdf"
        command = [
            browser, "--headless", "--disable-gpu", "--no-first-run", "--disable-extensions",
            "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
            *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
            f"--user-data-dir={Path(profile) / 'profile'}", "--no-pdf-header-footer",
            f"--print-to-pdf={made}", page.absolute().as_uri(),
        ]  # fmt: skip
        why = _run(command, limit_s)
        if not made.is_file() or not made.read_bytes().startswith(b"%PDF-"):
            return f"{browser} made none: {why or 'it said nothing'}"
        pdf.write_bytes(re.sub(_DATE, lambda date: _same_length(date[0]), made.read_bytes()))
    return None


def _run(command: list[str], limit_s: float) -> str:
    """The last line that a browser writes, once it has ended; it and its helpers are killed at the limit."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        return str(error)
    try:
        said = process.communicate(timeout=limit_s)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"it took longer than {limit_s:g} seconds"
    except BaseException:  # Ctrl-C: nothing of it stays behind
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"it ended with {process.returncode}"


def _same_length(date: bytes) -> bytes:
    """A fixed date in as many bytes, since a PDF holds the places of its parts."""
    fixed = b"(D:20000101000000+00'00'"
    return fixed[: len(date) - 1].ljust(len(date) - 1) + b")"
