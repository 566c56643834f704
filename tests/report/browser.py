"""Opens a page in headless Chromium as a reader would, and tells what it did and how it looks.

Chromium is driven through its own DevTools protocol over a pipe (file descriptors 3 and 4), so nothing needs
to be installed but the browser itself, and nothing listens on a port.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bearray.paper.document.pdf import find_browser


class Tab:
    """A page that was opened."""

    def __init__(self, read: Any, write: Any) -> None:
        self._read, self._write, self._buffer = read, write, b""
        self._number = 0
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []
        """All that the browser has told, in order."""

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer; events that come before it are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        self._write.write(json.dumps(message).encode() + b"\0")
        self._write.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer.get("result", {}))

    def wait(self, method: str) -> dict[str, Any]:
        """The next event of a kind."""
        while True:
            event = self._next()
            if event.get("method") == method:
                return event

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            block = os.read(self._read, 1 << 16)
            assert block, "the browser ended"
            self._buffer += block
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression on the page."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def of(self, method: str) -> list[dict[str, Any]]:
        """What the events of a kind said."""
        return [event["params"] for event in self.events if event["method"] == method]


@contextmanager
def opened(file: Path, *, width: int = 1200, height: int = 900, dark: bool = False) -> Iterator[Tab]:
    """A local file in a window of a width in CSS pixels, loaded to its end."""
    browser = find_browser()
    assert browser is not None, "no Chromium: apt-get install chromium, or set BEARRAY_CHROMIUM"
    to_browser, to_us = os.pipe(), os.pipe()

    def wire() -> None:  # the browser reads from 3 and writes to 4
        spare_in, spare_out = os.dup(to_browser[0]), os.dup(to_us[1])
        os.dup2(spare_in, 3)
        os.dup2(spare_out, 4)

    # Helpers of a browser that has ended may still write to its profile for a moment.
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        command = [
            browser, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-dev-shm-usage",
            "--disable-extensions", f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        process = subprocess.Popen(
            command, preexec_fn=wire, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_browser[0])
        os.close(to_us[1])
        with os.fdopen(to_browser[1], "wb") as write:
            try:
                tab = Tab(to_us[0], write)
                target = tab.send("Target.createTarget", url="about:blank")["targetId"]
                tab.session = tab.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
                for domain in ("Page", "Runtime", "Network", "Log"):
                    tab.send(f"{domain}.enable")
                tab.send(
                    "Emulation.setDeviceMetricsOverride",
                    width=width,
                    height=height,
                    deviceScaleFactor=1,
                    mobile=False,
                )
                theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
                tab.send("Emulation.setEmulatedMedia", features=[theme])
                tab.send("Page.navigate", url=file.absolute().as_uri())
                tab.wait("Page.loadEventFired")
                yield tab
            finally:
                process.kill()
                process.wait()
                os.close(to_us[0])


def wide(tab: Tab, width: int) -> list[str]:
    """Elements that stick out of the window and not of a box that scrolls or cuts what is in it."""
    found: list[str] = tab.evaluate(
        f"""[...document.body.querySelectorAll('*')].filter(e => {{
            const box = e.getBoundingClientRect();
            if (box.width == 0 || (box.right <= {width} + 1 && box.left >= -1)) return false;
            for (let up = e; up; up = up.parentElement)
                if (up.closest('svg') || ['auto', 'scroll', 'hidden'].includes(getComputedStyle(up).overflowX)
                    || up.matches('.skip, .sr'))
                    return false;
            return true;
        }}).map(e => e.outerHTML.slice(0, 120))"""
    )
    return found
